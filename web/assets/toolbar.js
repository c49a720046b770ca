// The buttons under the picture, and their keys.

import { rove } from "./roving.js";

const KEYS = { z: "freeze", x: "reset", m: "mirror", c: "compare", s: "snapshot", r: "record", f: "fullscreen" };
const TYPING = "input:not([type=range]):not([type=checkbox]), textarea, select";

export class Toolbar {
  // act(name): a button or its key was pressed; isActive(): whether keys count.
  constructor(root, act, isActive) {
    this.root = root;
    this.stage = root.querySelector(".sd-stage");
    this.act = (name) => name === "fullscreen" ? this.toggleFullscreen() : act(name);
    for (const button of root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
    rove(root.querySelector(".sd-bar"), "[data-do]");
    document.addEventListener("keydown", (event) => {
      const name = KEYS[event.key.toLowerCase()], isShortcut = event.ctrlKey || event.metaKey || event.altKey;
      if (!name || isShortcut || event.target.closest?.(TYPING) || !root.offsetParent || !isActive()) return;
      event.preventDefault();
      this.act(name);
    });
    document.addEventListener("fullscreenchange", () => {
      this.setPressed("fullscreen", document.fullscreenElement === this.stage);
    });
  }

  find(name) {
    return this.root.querySelector(`[data-do=${name}]`);
  }

  setPressed(name, on) {
    this.find(name).setAttribute("aria-pressed", String(on));
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.stage.requestFullscreen) this.stage.requestFullscreen();
    else this.setPressed("fullscreen", this.stage.classList.toggle("sd-cover"));   // iPhone: cover the page instead
  }
}
