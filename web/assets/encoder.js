// A worker that makes JPEG of camera pictures. On the page itself a browser encodes when it is idle, which under load is
// seldom; here it does so at once.

import { fit, shrink } from "./fit.js";

const canvas = new OffscreenCanvas(16, 16), context = canvas.getContext("2d", { alpha: false });
const small = new OffscreenCanvas(16, 16), smallContext = small.getContext("2d", { alpha: false });

onmessage = async ({ data: { id, frame, lines, field, mirrored, quality } }) => {
  if (frame) {
    fit(canvas, context, frame, frame.displayWidth, frame.displayHeight, lines, mirrored);
    frame.close();
  }
  shrink(small, smallContext, canvas, field);
  const [jpeg, before] = await Promise.all([
    small.convertToBlob({ type: "image/jpeg", quality }), createImageBitmap(canvas),
  ]).catch(() => [null, null]);
  postMessage({ id, jpeg, before }, before ? [before] : []);
};
