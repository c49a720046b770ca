// A file drop within a page of Gradio's: what it holds is the component's value. An example that is clicked while its
// script is still loaded is taken then.
let early;
const remember = (event) => { early = event.target.closest("[data-example]")?.dataset.example ?? early; };
element.addEventListener("click", remember);
import(new URL("streamdream/drop.js", document.baseURI)).then(({ FileDrop }) => {
  element.removeEventListener("click", remember);
  const drop = new FileDrop(element, props, (value) => { props.value = value; }, trigger);
  if (early) drop.takeExample(early);
});
