// An event of Gradio's has started a dream: show it at once.
watch("value", async () => {
  const { dreams } = await import(new URL("streamdream/dreams.js", document.baseURI));
  await dreams.ask();
  element.closest("[role=tabpanel]")?.querySelector(".sw-dreams")?.scrollIntoView({ block: "nearest", behavior: "smooth" });
});
