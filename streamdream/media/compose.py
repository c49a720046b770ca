"""Add a dream to a picture in the picture's own samples: Y'CbCr or RGB, 8 to 16 bits, any subsampling.

Where the dream adds nothing, the samples are those of the decoder, bit for bit. Alpha is never touched. Samples of 8
bits are dithered, as a dream fainter than a level would show as contours.
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
from streamdream.media.upscale import Levels, dither, upscale

Residual = NDArray[np.float32]
"""[h, w, 3] RGB in [-1, 1] units: dream minus frame."""


def compose_picture(picture: Any, residual: Residual, strength: float = 1.0, mask: Residual | None = None) -> Any:
    """Return a picture with ``strength`` x residual, scaled up to it, added; ``picture`` itself is not changed.

    ``picture`` is a planar PyAV frame (``planes.py``) tagged with its matrix and range. ``mask``, [H, W, 1] in 0..1, is
    the opacity of the dream at each pixel of the picture.
    """
    if is_hdr_picture(picture):
        return compose_hdr(picture, residual, strength, mask)
    result, matrix = copy_picture(picture), component_matrix(picture.format.is_rgb, int(picture.colorspace),
                                                             int(picture.color_range), bits_of(picture))
    add_levels(component_views(result)[:3], to_levels(residual, strength, matrix), mask, maximum(picture))
    return result


def compose_image(image: NDArray[np.uint8], residual: Residual, strength: float = 1.0, mask: Residual | None = None
                  ) -> NDArray[np.uint8]:
    """As ``compose_picture``, for an image uint8 [H, W, 3] RGB."""
    samples = list(cv2().split(image))
    add_levels(samples, to_levels(residual, strength, component_matrix(True, 0, 0, 8)), mask, 255)
    result: NDArray[np.uint8] = cv2().merge(samples)
    return result


def to_levels(residual: Residual, strength: float, matrix: Residual) -> list[Levels]:
    """What the residual adds to the first three components, in their units, each [h, w] at the residual's size.

    Y' = KR R + (1 - KR - KB) G + KB B, Cb = (B - Y') / (2 - 2 KB), Cr = (R - Y') / (2 - 2 KR) (ITU-R BT.601, BT.709,
    BT.2020). In the narrow range Y' spans 219 and the others 224 steps of 2^(bits - 8).
    """
    return list(cv2().split(cv2().transform(residual, matrix * np.float32(strength / 2))))


def add_levels(components: list[Samples], levels: list[Levels], mask: Residual | None, highest: int) -> None:
    """Scale up and add in place, saturating at 0 and ``highest``."""
    for number, (samples, added) in enumerate(zip(components, levels, strict=True)):
        added = upscale(added, *samples.shape)
        if mask is not None:
            added = added * resize(mask, *samples.shape).reshape(samples.shape)
        if samples.dtype == np.uint8:
            samples[:] = cv2().add(samples, dither(added, number), dtype=cv2().CV_8U)
        else:
            total = cv2().add(samples, added, dtype=cv2().CV_16U)
            np.minimum(total, np.maximum(samples, highest), out=samples)
