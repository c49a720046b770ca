// The sum of a picture and its dream in WebAssembly (add.wat): where no GPU draws, a canvas takes four times as long.

const PAGE_BYTES = 65536;
const PAIR_BYTES = 24;              // of add.wat's table of columns

// By its name: "failIfMajorPerformanceCaveat" does not keep Chromium from drawing in software.
function hasGpu() {
  const gl = document.createElement("canvas").getContext("webgl");
  const facts = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = gl?.getParameter(facts ? facts.UNMASKED_RENDERER_WEBGL : gl.RENDERER) ?? "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(gl) && !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

export class Adder {
  // One, or null where it would gain nothing or is not to be had.
  static async hire() {
    if (hasGpu() || !globalThis.WebAssembly) return null;
    const code = await fetch(new URL("./add.wasm", import.meta.url));
    const { instance } = await WebAssembly.instantiate(await code.arrayBuffer());
    return new Adder(instance.exports);
  }

  constructor({ memory, add }) {
    this.memory = memory;
    this.add = add;
  }

  // ``picture``: {pixels, width, height, mirrored}, RGBA and whether it is to be; ``halves``: ImageData, what is added above
  // what is taken away. Widths are even. The ImageData that comes back is written over by the next.
  sum({ pixels, width, height, mirrored }, halves) {
    const bytes = 4 * width * height, small = 2 * bytes, columns = small + halves.data.length;
    const row = columns + PAIR_BYTES * width / 2, end = row + 8 * (halves.width + 1);
    const missing = Math.ceil(end / PAGE_BYTES) - this.memory.buffer.byteLength / PAGE_BYTES;
    if (missing > 0) this.memory.grow(missing);
    const { buffer } = this.memory, all = new Uint8Array(buffer);
    all.set(pixels, 0);
    all.set(halves.data, small);
    const layout = [width, height, halves.width, halves.height, buffer.byteLength].join();
    if (layout !== this.layout) this.lay(columns, width, halves.width);
    this.layout = layout;
    this.add(0, bytes, width, height, small, halves.width, halves.height / 2, columns, row, Number(mirrored));
    return new ImageData(new Uint8ClampedArray(buffer, bytes, bytes), width, height);
  }

  lay(columns, width, small) {
    const table = new DataView(this.memory.buffer, columns, PAIR_BYTES * width / 2);
    for (let x = 0; x < width; x += 1) {
      const at = Math.max(0, Math.min(small - 1, (x + 0.5) * small / width - 0.5)), left = Math.floor(at);
      const pair = PAIR_BYTES * (x >> 1), second = x & 1;
      table.setInt32(pair + 4 * second, 8 * left, true);
      for (let place = 0; place < 4; place += 1) {
        table.setInt16(pair + 8 + 8 * second + 2 * place, Math.round(32767 * (at - left)), true);
      }
    }
  }
}
