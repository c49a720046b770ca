"""Scale a dream up to the size of a picture: crisp, without ringing and without steps of whole levels."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.resize import resize

Levels = NDArray[np.float32]
"""[H, W] or [H, W, C]: what is added to the samples of a picture, in their units."""

SIGMA, AMOUNT = 1.0, 1.0
"""Of the unsharp mask, in pixels of the small picture; figures: docs/notebook/2026-11-28-upscaling-and-dither.md."""


def upscale(levels: Levels, height: int, width: int) -> Levels:
    """[h, w] or [h, w, C] -> [height, width] or [height, width, C]; only resized where that is not larger.

    Cubic interpolation of what an unsharp mask has sharpened, clamped to the smallest and largest of the 3x3 pixels
    around: edges get steeper, and no lines appear beside them (AMD's FidelityFX Super Resolution 1.0 clamps to the
    nearest 2x2). Scaled by less than two it is sharpened less.
    """
    cv = cv2()
    scale = min(height / levels.shape[0], width / levels.shape[1])
    if scale <= 1:
        return resize(levels, height, width)
    amount = AMOUNT * min(scale - 1, 1)
    sharp = cv.addWeighted(levels, 1 + amount, cv.GaussianBlur(levels, (5, 5), SIGMA), -amount, 0)
    around, size = np.ones((3, 3), np.uint8), (width, height)
    lowest, highest = (cv.resize(extreme(levels, around), size, interpolation=cv.INTER_LINEAR)
                       for extreme in (cv.erode, cv.dilate))
    result = cv.resize(sharp, size, interpolation=cv.INTER_CUBIC)
    bounded: Levels = cv.min(cv.max(result, lowest, dst=result), highest, dst=result)
    return bounded


def dither(levels: Levels, number: int = 0) -> Levels:
    """Add a threshold between -0.5 and 0.5, both excluded, to each pixel of [H, W], in place: what is rounded then is
    right on average. ``number`` gives each component of a picture its own thresholds.

    They are the additive sequence R2 (Roberts 2018, "The Unreasonable Effectiveness of Quasirandom Sequences") modulo
    2^16: as even as an ordered matrix, with no grid to see. The same for all frames, as encoders spend bits on what
    changes.
    """
    rows, columns = (np.arange(length, dtype=np.uint16) * np.uint16(step)
                     for length, step in zip(levels.shape, (37345, 49471), strict=True))
    thresholds = ((rows + np.uint16(number * 21845))[:, None] + columns).view(np.int16)
    cv = cv2()
    result: Levels = cv.addWeighted(levels, 1, thresholds, 2**-16, 2**-17, dst=levels, dtype=cv.CV_32F)
    return result
