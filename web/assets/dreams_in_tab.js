// The list of dreams in a tab of Gradio's.
import(new URL("streamdream/dreams_list.js", document.baseURI)).then(({ DreamsList }) => {
  new DreamsList(element.querySelector(".sw-dreams"));
});
