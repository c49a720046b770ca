"""Fast composition for display: warp the newest residual to each frame and add it.

The reference is ``compose_image`` (media/compose.py) of ``warp.warp``. For speed this one uses whole grey levels
instead of floats, bilinear interpolation (harmless, as its result is not carried further) and the flow of DIS ultrafast
at half the field, which is as exact as that of DIS fast in a quarter of the time.
"""
from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, reference_images, warp
from streamdream.dream.reference_images import NO_REFERENCES, References
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings

DIS_FINEST_SCALE = 1
"""95 of 100 places lie within 1.5 px of the true motion of five frames, for 0.6 ms of 320x240. The preset's own, 2:
within 4.1 px for 0.1 ms; 0: within 0.6 px for 2.7 ms."""
_local = threading.local()


@dataclass(frozen=True)
class PublishedResidual:
    """The residual of a dream, for the display of the frames that follow."""

    levels: NDArray[np.int16]
    """[h, w, 3], at the size of the field: what the dream adds to a frame, in grey levels."""
    grey: optical_flow.Grey
    """[h/2, w/2]: the frame that was dreamed."""
    references: References = NO_REFERENCES
    """Guide, style and mask of that dream, so that the display reads no files."""


def prepare_residual(
    residual: NDArray[np.float32], image: NDArray[np.uint8], references: References = NO_REFERENCES
) -> PublishedResidual:
    """Convert a residual [h, w, 3] in [-1, 1] units and the frame ``image`` [H, W, 3] that it belongs to."""
    return PublishedResidual(warp.to_int16_levels(residual), _half_field(image, *residual.shape[:2]), references)


def composite(
    published: PublishedResidual | None, image: NDArray[np.uint8], settings: DreamSettings
) -> NDArray[np.uint8]:
    """Add the residual to the frame ``image`` uint8 [H, W, 3]; without a residual, return the frame."""
    if published is None:
        return image
    cv, levels = cv2(), warp_residual(published, image, settings)
    if levels.shape != image.shape:
        levels = cv.resize(levels, (image.shape[1], image.shape[0]), interpolation=cv.INTER_LINEAR)
    mask = reference_images.mask_weights(published.references, *image.shape[:2])
    if mask is not None:
        levels = np.rint(levels * mask).astype(np.int16)
    dream: NDArray[np.uint8] = cv.add(image, levels, dtype=cv.CV_8U)
    return dream


def warp_residual(published: PublishedResidual, image: NDArray[np.uint8], settings: DreamSettings) -> NDArray[np.int16]:
    """Warp the residual to the frame ``image`` uint8 [H, W, 3]. Return [h, w, 3], grey levels at the field's size."""
    cv, (height, width) = cv2(), published.levels.shape[:2]
    grey = _half_field(image, height, width)
    levels = published.levels
    if settings.flow != "none" and grey.shape == published.grey.shape:
        motion = _dis_ultrafast().calc(grey, published.grey, None)
        coordinates = warp.sample_coordinates(cv.resize(motion * _scale(motion, width, height), (width, height)))
        levels = cv.remap(levels, coordinates, None, cv.INTER_LINEAR, borderMode=cv.BORDER_REFLECT_101)
    if settings.original_colors:
        levels = cv.transform(levels, warp.LUMA_MATRIX)
    if settings.strength != 1:
        levels = cv.multiply(levels, (settings.strength,) * 3)
    return levels


def _half_field(image: NDArray[np.uint8], height: int, width: int) -> optical_flow.Grey:
    """Convert to grey at half of (height, width).

    Halve the image as long as possible, as the mean of four pixels is the fastest reduction of OpenCV. The remaining
    factor is below two, where bilinear interpolation skips no pixels.
    """
    cv, small = cv2(), optical_flow.grey(image)
    height, width = max(height // 2, 1), max(width // 2, 1)
    while small.shape[0] >= 2 * height and small.shape[1] >= 2 * width:
        small = cv.resize(small, (small.shape[1] // 2, small.shape[0] // 2), interpolation=cv.INTER_LINEAR)
    result: optical_flow.Grey = small if small.shape == (height, width) else cv.resize(small, (width, height))
    return result


def _dis_ultrafast() -> Any:
    """Return this thread's own estimator, as each holds its buffers."""
    if not hasattr(_local, "engine"):
        _local.engine = cv2().DISOpticalFlow_create(cv2().DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    _local.engine.setFinestScale(DIS_FINEST_SCALE)  # OpenCV changes it for small pictures, and keeps that
    return _local.engine


def _scale(motion: optical_flow.Flow, width: int, height: int) -> NDArray[np.float32]:
    """Return the factors (x, y) from the size of the flow to (width, height)."""
    return np.array([width / motion.shape[1], height / motion.shape[0]], np.float32)
