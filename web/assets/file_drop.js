// A file drop within a page of Gradio's: what it holds is the component's value.
import(new URL("streamdream/drop.js", document.baseURI)).then(({ FileDrop }) => {
  new FileDrop(element, props, (value) => { props.value = value; }, trigger);
  replayClicks();
});
