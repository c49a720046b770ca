// Thumbnails to choose a layer by, for all tabs (use_settings.js). While a thumbnail is being made the server sends a
// single pixel; the image is then requested again.
const RETRY_MS = 3000;
const onLoad = (image) => {
  if (image.naturalWidth > 1) { image.classList.add("sw-loaded"); return; }
  setTimeout(() => {
    if (image.isConnected) image.src = image.src.split("?")[0] + "?retry=" + Date.now();
  }, RETRY_MS);
};
element.addEventListener("load", (event) => { if (event.target.tagName === "IMG") onLoad(event.target); }, true);
for (const image of element.querySelectorAll("img")) { if (image.complete && image.naturalWidth) onLoad(image); }

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-layer]");
  if (!button) return;
  for (const other of element.querySelectorAll("button[data-layer]")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  const { layer, model } = button.dataset;
  window.dispatchEvent(new CustomEvent("streamdream:layer", { detail: { layer, model } }));
  trigger("select", { layer, model });
});
