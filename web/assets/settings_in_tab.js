// The settings of the tabs Video and Picture. Their value, which goes along when a dream is started, is JSON: all
// settings by the names of their fields.
const box = element.querySelector(".sd-panel"), tab = element.closest("[id^=tab-]").id.replace("tab-", "");
Promise.all([
  import(new URL("streamdream/panel.js", document.baseURI)),
  fetch(new URL("live/facts", document.baseURI)).then((answer) => answer.json()),
]).then(([{ Panel }, facts]) => {
  const update = () => { props.value = JSON.stringify(box.panel.values); };
  new Panel(box, { ...facts, ...props.facts }, update, tab);
  update();
});
