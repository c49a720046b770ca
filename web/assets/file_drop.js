// A file drop within a page of Gradio's: what it holds is the component's value.
import(new URL("streamdream/drop.js", document.baseURI)).then(({ FileDrop }) => {
  const drop = new FileDrop(element, props, (value) => { props.value = value; }, trigger);
  becomeReady(!drop.input.files.length);  // a file of one's own wins over an example
}).catch(sayNotLoaded);
