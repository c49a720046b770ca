// An event of Gradio's has started a dream: show it at once.
watch("value", async () => {
  const { dreams } = await import(new URL("streamdream/dreams.js", document.baseURI));
  await dreams.ask();
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
  element.closest("[role=tabpanel]")?.querySelector(".sw-dreams")?.scrollIntoView({ block: "nearest", behavior });
});
