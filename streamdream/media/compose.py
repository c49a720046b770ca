"""Add a dream to a picture in the picture's own samples: Y'CbCr or RGB, 8 to 16 bits, any subsampling.

Where the dream adds nothing, the samples are those of the decoder, bit for bit. Alpha is never touched.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.color_matrix import component_matrix
from streamdream.media.hdr_compose import compose_hdr
from streamdream.media.opencv import cv2
from streamdream.media.planes import Samples, bits_of, component_views, copy_picture, maximum
from streamdream.media.resize import resize
from streamdream.media.tone_mapping import is_hdr_picture

Residual = NDArray[np.float32]
"""[h, w, 3] RGB in [-1, 1] units: dream minus frame."""


def compose_picture(picture: Any, residual: Residual, strength: float = 1.0, mask: Residual | None = None) -> Any:
    """Return a picture with ``strength`` x residual, scaled up to it, added; ``picture`` itself is not changed.

    ``picture`` is a planar PyAV frame (``planes.py``) tagged with its matrix and range. ``mask``, [H, W, 1] in 0..1, is
    the opacity of the dream at each pixel of the picture.
    """
    if is_hdr_picture(picture):
        return compose_hdr(picture, residual, strength, mask)
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


def add_levels(samples: Samples, levels: NDArray[np.int16], mask: Residual | None, highest: int) -> None:
    """Add in place, saturating at 0 and ``highest``."""
    levels = resize(levels, *samples.shape)
    if mask is not None:
        levels = np.rint(levels * resize(mask, *samples.shape).reshape(samples.shape)).astype(np.int16)
    if samples.dtype == np.uint8:
        samples[:] = cv2().add(samples, levels, dtype=cv2().CV_8U)
        return
    total = cv2().add(samples, levels, dtype=cv2().CV_32S)
    samples[:] = np.clip(total, 0, np.maximum(samples, highest), out=total)
