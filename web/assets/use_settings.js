// Settings for the panel of a tab, from anywhere on the page:
//
//   dispatchEvent(new CustomEvent("streamdream:use", { detail: { tab: "video", values: { layers: "mixed3", octaves: 3 } } }))
//
// ``tab`` is "live", "video" or "picture". ``values`` are settings by the names of their fields, model and field_height
// too; what is missing stays, and what the tab does not have is left out. A tab that has not been opened takes them when
// it is. "streamdream:layer" with { layer, model } uses layers in all tabs.

const TABS = ["live", "video", "picture"], MAX_WAITING = 20;

export function holdSettings() {
  const panels = new Map(), waiting = new Map();
  const use = (tab, values) => {
    if (panels.has(tab)) panels.get(tab).use(values);
    else if (TABS.includes(tab)) waiting.set(tab, [...(waiting.get(tab) ?? []), values].slice(-MAX_WAITING));
  };
  addEventListener("streamdream:use", ({ detail: { tab, values } }) => use(tab, values));
  addEventListener("streamdream:layer", ({ detail: { layer, model } }) => {
    for (const tab of TABS) use(tab, { model, layers: layer, channel: "" });
  });
  addEventListener("streamdream:panel", ({ detail: { tab, panel } }) => {   // a new one: its tab has been opened
    panels.set(tab, panel);
    for (const values of waiting.get(tab) ?? []) panel.use(values);
    waiting.delete(tab);
  });
}
