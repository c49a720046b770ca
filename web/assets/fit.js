// A picture onto a canvas of its own shape, at most ``lines`` high (wide, when it stands), perhaps mirrored.

const LONGEST = 1920;

export function scaleOf(wide, high, lines) {
  return Math.min(1, lines / Math.min(wide, high), LONGEST / Math.max(wide, high));
}

export function fit(canvas, context, picture, wide, high, lines, mirrored) {
  const scale = scaleOf(wide, high, lines);
  const width = Math.round(wide * scale), height = Math.round(high * scale);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
  const { visibleRect } = picture;    // where each pixel is one, nothing is to be smoothed: a quarter of the time less
  context.imageSmoothingEnabled = visibleRect?.width !== width || visibleRect.height !== height;
  context.drawImage(picture, 0, 0, width, height);
}

// A smaller one of a canvas, at most ``lines`` high, perhaps mirrored: what is dreamed on.
export function shrink(canvas, context, picture, lines, mirrored = false) {
  const height = Math.min(lines, picture.height);
  const width = height < picture.height ? Math.max(16, 2 * Math.round(picture.width * height / picture.height / 2))
    : picture.width;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
  context.imageSmoothingQuality = "high"; // the usual one leaves out most of a picture that becomes much smaller
  context.drawImage(picture, 0, 0, width, height);
}
