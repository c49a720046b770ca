// The picker of channels in the tab Layers. What is chosen goes to all tabs, by "streamdream:layer" (use_settings.js). The
// tab Live tells by "streamdream:live" what it dreams.
let picker, model;
const start = async () => {
  const host = element.querySelector(".sd-picker");
  picker = undefined;
  if (!host) return;
  const { ChannelPicker } = await import(new URL("streamdream/channel_picker.js", document.baseURI));
  const live = document.querySelector(".sd .sd-panel")?.panel;
  model = host.dataset.model;
  picker = new ChannelPicker(host, (layer) =>
    window.dispatchEvent(new CustomEvent("streamdream:layer", { detail: { layer, model } })));
  picker.open(model, live?.values.model === model ? live.values.layers : host.dataset.start, live?.facts.values.layers);
};
watch("value", start);
start();
window.addEventListener("streamdream:live", ({ detail }) => {
  if (detail.model === model) picker?.setLayers(detail.layers);
});
