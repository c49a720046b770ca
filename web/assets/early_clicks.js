// Put before the script of a component (core/assets.py): buttons that are clicked while its modules are still loaded are
// kept, and ``replayClicks()`` clicks them, each once and the last one last, as soon as somebody listens.
const earlyClicks = new Set();
const keepClick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  earlyClicks.delete(button);
  earlyClicks.add(button);
};
element.addEventListener("click", keepClick);
const replayClicks = () => {
  element.removeEventListener("click", keepClick);
  for (const button of earlyClicks) button.click();
};
