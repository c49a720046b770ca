// A worker that encodes camera frames as JPEG. The page itself would encode only when it is idle, which is rare under load.

import { scaleDown, scaleToField } from "./scale.js";

const canvas = new OffscreenCanvas(16, 16), context = canvas.getContext("2d", { alpha: false });
const small = new OffscreenCanvas(16, 16), smallContext = small.getContext("2d", { alpha: false });

// ``frame``: a VideoFrame, or null to encode the last one again.
onmessage = async ({ data: { id, frame, shorterSide, fieldHeight, mirrored, quality } }) => {
  if (frame) {
    scaleDown(canvas, context, frame, frame.displayWidth, frame.displayHeight, shorterSide, mirrored);
    frame.close();
  }
  scaleToField(small, smallContext, canvas, fieldHeight);
  const [jpeg, original] = await Promise.all([
    small.convertToBlob({ type: "image/jpeg", quality }), createImageBitmap(canvas),
  ]).catch(() => [null, null]);
  postMessage({ id, jpeg, original }, original ? [original] : []);
};
