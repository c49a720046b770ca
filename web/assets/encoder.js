// A worker that makes JPEG of camera pictures. On the page itself a browser encodes when it is idle, which under load is
// seldom; here it does so at once.

import { fit } from "./fit.js";

const canvas = new OffscreenCanvas(16, 16), context = canvas.getContext("2d", { alpha: false });

onmessage = async ({ data: { id, frame, lines, mirrored, quality, keep } }) => {
  if (frame) {
    fit(canvas, context, frame, frame.displayWidth, frame.displayHeight, lines, mirrored);
    frame.close();
  }
  const [jpeg, before] = await Promise.all([
    canvas.convertToBlob({ type: "image/jpeg", quality }), keep ? createImageBitmap(canvas) : null,
  ]).catch(() => [null, null]);
  postMessage({ id, jpeg, before }, before ? [before] : []);
};
