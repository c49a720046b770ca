// A mask: white strokes over a picture mark where to dream.
const MAX_SIDE = 512;

export class DropMask {
  // `onChange(mask, drawing)` is told of each change: data URLs of white on black, as the server takes it, and of the
  // strokes alone, for `show`; both are "" for none.
  constructor(tools, canvas, image, onChange) {
    Object.assign(this, { tools, canvas, image, onChange, lastPoint: null });
    canvas.addEventListener("pointerdown", (event) => {
      if (tools.hidden) return;
      canvas.setPointerCapture(event.pointerId);
      this.lastPoint = this.toCanvas(event);
      this.stroke(this.lastPoint);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => { if (this.lastPoint) this.stroke(this.toCanvas(event)); });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (!this.lastPoint) return;
        this.lastPoint = null;
        this.tell();
      });
    }
    tools.querySelector(".sw-drop-clear-mask").addEventListener("click", () => this.clear());
  }

  // Show the tools for a picture of that size, with an earlier drawing.
  async show(width, height, drawing = "") {
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.tools.hidden = false;
    if (!drawing) return;
    const earlier = new Image();
    earlier.src = drawing;
    await earlier.decode();
    this.canvas.getContext("2d").drawImage(earlier, 0, 0, this.canvas.width, this.canvas.height);
    this.tell();
  }

  hide() {
    this.tools.hidden = true;
    this.canvas.width = this.canvas.height = 1;
  }

  clear() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.onChange("", "");
  }

  toCanvas(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.canvas.width / box.width,
            (event.clientY - box.top) * this.canvas.height / box.height];
  }

  stroke(to) {
    const context = this.canvas.getContext("2d");
    context.globalCompositeOperation = this.tools.querySelector(".sw-drop-erase").checked ? "destination-out" : "source-over";
    context.strokeStyle = "white";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = Number(this.tools.querySelector(".sw-drop-brush").value) / 100
      * Math.max(this.canvas.width, this.canvas.height);
    context.beginPath();
    context.moveTo(...this.lastPoint);
    context.lineTo(...to);
    context.stroke();
    this.lastPoint = to;
  }

  tell() {
    const mask = document.createElement("canvas");
    mask.width = this.canvas.width;
    mask.height = this.canvas.height;
    const context = mask.getContext("2d");
    context.fillRect(0, 0, mask.width, mask.height);
    context.drawImage(this.canvas, 0, 0);
    this.onChange(mask.toDataURL("image/png"), this.canvas.toDataURL("image/png"));
  }
}
