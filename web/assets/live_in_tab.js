// The tab Live within a page of Gradio's.
import(new URL("streamdream/live.js", document.baseURI)).then(async ({ start }) => {
  await start(element.querySelector(".sd"));
  becomeReady();
}).catch(sayNotLoaded);
