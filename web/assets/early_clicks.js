// Put before the script of a component (core/assets.py), which is busy while its modules are loaded: buttons that are
// clicked meanwhile are kept. ``becomeReady()`` ends that as soon as somebody listens, and clicks them, each once and the
// last one last, if they are still ``wanted``. ``sayNotLoaded`` takes the error where nobody will.
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
  for (const part of element.querySelectorAll("[aria-busy]")) part.removeAttribute("aria-busy");
  if (!wanted) return;
  for (const button of earlyClicks) button.click();
};
const sayNotLoaded = (error) => {
  becomeReady(false);
  const words = document.createElement("p");
  words.className = "sw-not-loaded";
  words.setAttribute("role", "alert");
  words.textContent = STRINGS.frame.not_loaded;
  element.prepend(words);
  console.error(error);
};
