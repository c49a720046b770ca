// Scale images onto canvases.

const MAX_SIDE = 1920;

// Draw ``image`` onto a canvas of its own shape, with a shorter side of at most ``shorterSide`` pixels.
export function scaleDown(canvas, context, image, imageWidth, imageHeight, shorterSide, mirrored) {
  const scale = Math.min(
    1, shorterSide / Math.min(imageWidth, imageHeight), MAX_SIDE / Math.max(imageWidth, imageHeight),
  );
  const width = Math.round(imageWidth * scale), height = Math.round(imageHeight * scale);
  resize(canvas, width, height);
  context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
  const { visibleRect } = image;      // at scale 1 smoothing changes nothing, and drawing without it is faster
  context.imageSmoothingEnabled = visibleRect?.width !== width || visibleRect.height !== height;
  context.drawImage(image, 0, 0, width, height);
}

// Draw a smaller copy of ``source``, a canvas, at most ``fieldHeight`` high: the dream is computed on it.
export function scaleToField(canvas, context, source, fieldHeight) {
  const height = Math.min(fieldHeight, source.height);
  const width = height < source.height ? Math.max(16, 2 * Math.round(source.width * height / source.height / 2))
    : source.width;
  resize(canvas, width, height);
  context.imageSmoothingQuality = "high"; // the default quality skips most pixels when it shrinks an image a lot
  context.drawImage(source, 0, 0, width, height);
}

// Resizing clears a canvas and resets its context, even when the size stays the same.
export function resize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}
