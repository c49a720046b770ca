// The gallery of looks in a tab of Gradio's: what is chosen goes to the server as an event.
import(new URL("streamdream/looks.js", document.baseURI)).then(({ Looks }) => {
  const box = element.querySelector(".sd-looks-box");
  if (!box) return;
  const value = (label) => element.closest(".sw-panel").querySelector(`input[aria-label=${label}]`).value;
  new Looks(box, {
    use: (look) => trigger("select", { look }),
    present: () => ({ layers: value("Layers"), model: value("Network") }),
    change: (layers) => trigger("select", { layers }),
  });
});
