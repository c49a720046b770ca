// Puts the dream onto a picture: on this side of the line, where the whole picture is.

// What comes is one picture: the upper half is what the dream adds, the lower half what it takes away, both of the field's
// size. A canvas knows how to add, and to take away is to add to the negative; where there is no GPU, pixels are added.
export class Composer {
  // ``adder``: what adds pixels, where there is one; pictures are {pixels, width, height, mirrored} then, or bitmaps.
  constructor(canvas, adder = null) {
    this.canvas = canvas;
    this.adder = adder;
    this.context = canvas.getContext("2d", { alpha: false });
    this.half = document.createElement("canvas"); // one half by itself, so that the other never shows at its edge
    this.halfContext = this.half.getContext("2d", { alpha: false });
    this.whole = document.createElement("canvas");
    this.wholeContext = this.whole.getContext("2d", { alpha: false, willReadFrequently: true });
  }

  show(picture, halves) {
    const { width, height } = picture, { canvas, context } = this;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (picture.pixels) {
      context.putImageData(this.adder.sum(picture, this.read(halves)), 0, 0);
      return;
    }
    context.drawImage(picture, 0, 0);
    this.add(halves, 0);
    this.negate();
    this.add(halves, 1);
    this.negate();
  }

  read(halves) {
    const width = halves.width & ~1, { height } = halves;
    if (this.whole.width !== width || this.whole.height !== height) Object.assign(this.whole, { width, height });
    this.wholeContext.drawImage(halves, 0, 0, width, height);
    return this.wholeContext.getImageData(0, 0, width, height);
  }

  add(halves, place) {
    const { width } = halves, height = halves.height / 2;
    if (this.half.width !== width || this.half.height !== height) Object.assign(this.half, { width, height });
    this.halfContext.drawImage(halves, 0, place * height, width, height, 0, 0, width, height);
    this.apply("lighter", () => this.context.drawImage(this.half, 0, 0, this.canvas.width, this.canvas.height));
  }

  negate() {
    this.apply("difference", () => {
      this.context.fillStyle = "#fff";
      this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    });
  }

  apply(operation, draw) {
    this.context.globalCompositeOperation = operation;
    draw();
    this.context.globalCompositeOperation = "source-over";
  }
}
