// A worker that makes JPEG of camera pictures. On the page itself a browser encodes when it is idle, which under load is
// seldom; here it does so at once.

import { fit, scaleOf, shrink } from "./fit.js";

const SPARES = 4;
const canvas = new OffscreenCanvas(16, 16), small = new OffscreenCanvas(16, 16), spares = [];
let context = null, smallContext = null;
let toMirror = false;               // the canvas holds the picture as it came

// ``raw``: the page wants the picture's pixels, which are read at once where it fits as it is; else a bitmap.
onmessage = async ({ data: { id, frame, lines, field, mirrored, quality, raw, spare } }) => {
  if (spare) {
    if (spares.length < SPARES) spares.push(spare);
    return;
  }
  context ??= canvas.getContext("2d", { alpha: false, willReadFrequently: raw });
  smallContext ??= small.getContext("2d", { alpha: false, willReadFrequently: raw });
  let pixels = null;
  if (frame) {
    pixels = raw ? await read(frame, lines).catch(() => null) : null;
    if (!pixels) fit(canvas, context, frame, frame.displayWidth, frame.displayHeight, lines, mirrored);
    toMirror = Boolean(pixels) && mirrored;
    frame.close();
  } else if (toMirror && raw) {
    pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  } else if (toMirror) {
    await mirror();
  }
  shrink(small, smallContext, canvas, field, toMirror);
  const { width, height } = canvas;
  const [jpeg, before] = await Promise.all([
    small.convertToBlob({ type: "image/jpeg", quality }), pixels ? null : createImageBitmap(canvas),
  ]).catch(() => [null, null]);
  if (pixels) postMessage({ id, jpeg, raw: { pixels, width, height, mirrored: toMirror } }, [pixels.buffer]);
  else postMessage({ id, jpeg, before }, before ? [before] : []);
};

async function mirror() {
  const picture = await createImageBitmap(canvas);
  context.setTransform(-1, 0, 0, 1, canvas.width, 0);
  context.drawImage(picture, 0, 0);
  picture.close();
  toMirror = false;
}

// A camera's picture as RGBA, onto the canvas, too; null where it would have to be scaled or turned.
async function read(frame, lines) {
  const { width, height } = frame.visibleRect;
  const asItIs = width === frame.displayWidth && height === frame.displayHeight && !frame.rotation && !frame.flip;
  if (!asItIs || width % 2 || scaleOf(width, height, lines) < 1) return null;
  const place = spares.findIndex((spare) => spare.byteLength === 4 * width * height);
  const buffer = place < 0 ? new ArrayBuffer(4 * width * height) : spares.splice(place, 1)[0];
  const pixels = new Uint8ClampedArray(buffer);
  await frame.copyTo(pixels, { format: "RGBA" });
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.resetTransform();
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
  return pixels;
}
