// Adds the residual (dream minus frame) to the full-size frame, in the browser.

import { resize } from "./scale.js";

// The residual comes as one image of twice the field's height: its positive part above its negated negative part.
// Canvas can add ("lighter"); to subtract, it adds to the inverted image.
export class Composer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.half = document.createElement("canvas"); // one part alone, so that interpolation never mixes both at the seam
    this.halfContext = this.half.getContext("2d", { alpha: false });
  }

  show(frame, residual) {
    resize(this.canvas, frame.width, frame.height);
    this.context.drawImage(frame, 0, 0);
    this.add(residual, 0);
    this.invert();
    this.add(residual, 1);
    this.invert();
  }

  // ``part``: 0 is the upper half of ``residual``, 1 the lower half.
  add(residual, part) {
    const { width } = residual, height = residual.height / 2;
    resize(this.half, width, height);
    this.halfContext.drawImage(residual, 0, part * height, width, height, 0, 0, width, height);
    this.blend("lighter", () => this.context.drawImage(this.half, 0, 0, this.canvas.width, this.canvas.height));
  }

  invert() {
    this.blend("difference", () => {
      this.context.fillStyle = "#fff";
      this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    });
  }

  blend(operation, draw) {
    this.context.globalCompositeOperation = operation;
    draw();
    this.context.globalCompositeOperation = "source-over";
  }
}
