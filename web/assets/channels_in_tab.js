// The picker of channels in the tab Layers. What is chosen goes to the tab Live by an event of the window, to the others
// by one of Gradio's. The tab Live tells by "streamdream:live" what it dreams.
let picker, model;
const start = async () => {
  const host = element.querySelector(".sd-picker");
  picker = undefined;
  if (!host) return;
  const { ChannelPicker } = await import(new URL("streamdream/channel_picker.js", document.baseURI));
  const live = document.querySelector(".sd")?.page?.panel.values;
  model = host.dataset.model;
  picker = new ChannelPicker(host, (layers) => {
    window.dispatchEvent(new CustomEvent("streamdream:layer", { detail: { layer: layers, model, allTabs: true } }));
    trigger("select", { layers, model });
  });
  picker.open(model, live?.model === model ? live.layers : host.dataset.start,
    document.querySelector(".sd")?.page?.panel.facts.values.layers);
};
watch("value", start);
start();
window.addEventListener("streamdream:live", ({ detail }) => {
  if (detail.model === model) picker?.setLayers(detail.layers);
});
