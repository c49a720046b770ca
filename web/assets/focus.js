// A control that vanishes or is switched off while it has the focus leaves it to the next one around it, not to nobody.

const FOCUSABLE = "a[href], button, input, select, textarea, summary, video[controls], [tabindex]";

let path = [];                        // from the control that has the focus to the document

document.addEventListener("focusin", ({ target }) => {
  path = [];
  for (let node = target; node instanceof Element; node = node.parentElement) path.push(node);
});

// Called after each change of the page.
export function keepFocus() {
  const [control] = path;
  if (!control || document.activeElement !== document.body || isUsable(control)) return;   // else the visitor left it
  for (const around of path.slice(1)) {
    const next = around.isConnected && [...around.querySelectorAll(FOCUSABLE)].find(canHaveFocus);
    if (!next) continue;
    next.focus({ preventScroll: true });
    return;
  }
}

function isUsable(control) {
  return control.checkVisibility({ visibilityProperty: true }) && !control.disabled;
}

function canHaveFocus(control) {
  return isUsable(control) && control.tabIndex >= 0;
}
