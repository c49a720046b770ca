"""Add a dream to a picture in the picture's own samples: Y'CbCr or RGB, 8 to 16 bits, any subsampling.

Where the dream adds nothing, the samples are those of the decoder, bit for bit. Alpha is never touched.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.planes import Samples, component_views, copy_picture

Residual = NDArray[np.float32]
"""[h, w, 3] RGB in [-1, 1] units: dream minus frame."""
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
                9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Colour matrices (ITU-T H.273, MatrixCoefficients) -> their weights of red and blue, KR and KB."""
FULL_RANGE = 2


def compose_picture(picture: Any, residual: Residual, strength: float = 1.0, mask: Residual | None = None) -> Any:
    """Return a picture with ``strength`` x residual, scaled up to it, added; ``picture`` itself is not changed.

    ``picture`` is a planar PyAV frame (``planes.py``) tagged with its matrix and range. ``mask``, [H, W, 1] in 0..1, is
    the opacity of the dream at each pixel of the picture.
    """
    result = copy_picture(picture)
    for samples, levels in zip(component_views(result), to_levels(residual, strength, picture), strict=False):
        add_levels(samples, levels, mask, maximum(picture))
    return result


def to_levels(residual: Residual, strength: float, picture: Any) -> list[NDArray[np.int16]]:
    """What the residual adds to the first three components, in their units, each int16 [h, w] at the residual's size.

    Y' = KR R + (1 - KR - KB) G + KB B, Cb = (B - Y') / (2 - 2 KB), Cr = (R - Y') / (2 - 2 KR) (ITU-R BT.601, BT.709,
    BT.2020). In the narrow range Y' spans 219 and the others 224 steps of 2^(bits - 8).
    """
    scaled: Residual = cv2().multiply(residual, (strength / 2,) * 3)
    parts = cv2().transform(scaled, component_matrix(picture.format.is_rgb, int(picture.colorspace),
                                                     int(picture.color_range), bits_of(picture)))
    levels: NDArray[np.int16] = np.rint(np.clip(parts, -32768, 32767)).astype(np.int16)
    return list(cv2().split(levels))


@cache
def component_matrix(is_rgb: bool, colorspace: int, color_range: int, bits: int) -> NDArray[np.float32]:
    """[3, 3]: RGB, of which 1 is the span from black to white, -> components in their units."""
    span = 2**bits - 1
    if is_rgb:
        return np.eye(3, dtype=np.float32) * np.float32(span)
    red, blue = LUMA_WEIGHTS.get(colorspace, LUMA_WEIGHTS[6])
    luma = np.array([red, 1 - red - blue, blue])
    rows = np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)])
    spans = (span, span, span) if color_range == FULL_RANGE else (219 << bits - 8, 224 << bits - 8, 224 << bits - 8)
    matrix: NDArray[np.float32] = (rows * np.array(spans)[:, None]).astype(np.float32)
    return matrix


def add_levels(samples: Samples, levels: NDArray[np.int16], mask: Residual | None, highest: int) -> None:
    """Add in place, saturating at 0 and ``highest``."""
    height, width = samples.shape
    if levels.shape != samples.shape:
        kind = cv2().INTER_CUBIC if levels.shape[1] < width else cv2().INTER_AREA
        levels = cv2().resize(levels, (width, height), interpolation=kind)
    if mask is not None:
        levels = np.rint(levels * cv2().resize(mask, (width, height), interpolation=cv2().INTER_AREA)).astype(np.int16)
    if samples.dtype == np.uint8:
        samples[:] = cv2().add(samples, levels, dtype=cv2().CV_8U)
        return
    total = cv2().add(samples, levels, dtype=cv2().CV_32S)
    samples[:] = np.clip(total, 0, np.maximum(samples, highest), out=total)


def bits_of(picture: Any) -> int:
    return int(picture.format.components[0].bits)


def maximum(picture: Any) -> int:
    """The largest sample."""
    return (1 << bits_of(picture)) - 1
