// The picture on the stage: the frame with its dream, and, to compare, the frame alone on the left of a slider.

import { Composer } from "./compose.js";
import strings from "./strings.js";
import { fill } from "./words.js";

export class Picture {
  constructor(stage) {
    this.stage = stage;
    this.canvas = stage.querySelector(".sd-canvas");
    this.composer = new Composer(this.canvas);
    this.split = stage.querySelector(".sd-split");
    this.split.addEventListener("input", () => this.updateSplit());
    this.updateSplit();
  }

  // What it shows, for screen readers.
  describe(text) {
    this.canvas.setAttribute("aria-label", text);
  }

  compare(on) {
    this.split.hidden = !on;
  }

  draw(residual, original) {
    const { width, height } = original;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.stage.style.setProperty("--sd-ratio", width / height);
    }
    this.composer.show(original, residual);
    const left = this.split.hidden ? 0 : Math.round(width * this.split.value / 1000);
    if (left) this.composer.context.drawImage(original, 0, 0, left, height, 0, 0, left, height);
  }

  updateSplit() {
    const percent = this.split.value / 10;
    this.stage.style.setProperty("--sd-split", `${percent}%`);
    this.split.setAttribute("aria-valuetext", fill(strings.live.split_value, { percent: Math.round(percent) }));
  }
}
