// The settings of the tabs Video and Picture. Their value, which goes along when a dream is started, is JSON: all
// settings by the names of their fields. They outlive a reload, as the files do.
const box = element.querySelector(".sd-panel"), tab = element.closest("[id^=tab-]").id.replace("tab-", "");
Promise.all([
  import(new URL("streamdream/panel.js", document.baseURI)),
  fetch(new URL("live/facts", document.baseURI)).then((answer) => answer.ok ? answer.json() : Promise.reject(answer.status)),
]).then(([{ Panel }, facts]) => {
  const key = `streamdream-settings-${tab}`;
  const update = () => {
    props.value = JSON.stringify(box.panel.values);
    try { sessionStorage.setItem(key, props.value); } catch { /* no storage */ }
  };
  const panel = new Panel(box, { ...facts, ...props.facts }, update, tab);
  try {
    const stored = JSON.parse(sessionStorage.getItem(key));
    if (stored && stored.model in facts.networks) panel.set(stored, { isStep: false });
  } catch { /* none, or not ours */ }
  update();
  becomeReady();
}).catch(sayNotLoaded);
