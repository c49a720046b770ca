// Layers to pick from: a click takes one, here and, by an event of the window, in the live tab. A picture that is not
// made yet comes as a single pixel, and is asked for again.
const RETRY_MS = 3000;
const seen = (image) => {
  if (image.naturalWidth > 1) { image.classList.add("sw-there"); return; }
  setTimeout(() => {
    if (image.isConnected) image.src = image.src.split("?")[0] + "?again=" + Date.now();
  }, RETRY_MS);
};
element.addEventListener("load", (event) => { if (event.target.tagName === "IMG") seen(event.target); }, true);
for (const image of element.querySelectorAll("img")) { if (image.complete && image.naturalWidth) seen(image); }

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-layer]");
  if (!button) return;
  for (const other of element.querySelectorAll("button[data-layer]")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  const { layer, model } = button.dataset;
  const detail = { layer, model, everywhere: element.closest("#tab-layers") !== null };
  window.dispatchEvent(new CustomEvent("streamdream:layer", { detail }));
  trigger("select", { layer, model });
});
