// Put before the script of a component (core/assets.py), which is busy while its modules are loaded: buttons that are
// clicked meanwhile are kept. ``becomeReady()`` ends that as soon as somebody listens, and clicks them, each once and the
// last one last, if they are still ``wanted``.
const earlyClicks = new Set();
const keepClick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  earlyClicks.delete(button);
  earlyClicks.add(button);
};
element.addEventListener("click", keepClick);
const becomeReady = (wanted = true) => {
  element.removeEventListener("click", keepClick);
  for (const part of element.querySelectorAll("[aria-busy]")) part.ariaBusy = null;
  if (!wanted) return;
  for (const button of earlyClicks) button.click();
};
