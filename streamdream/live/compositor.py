"""What display does for each frame, quickly: the newest residual, moved to where this frame's things are, on the frame.

``carry.compose`` of ``carry.warp`` is the plain reference. This one differs from it by rounding and by a bilinear
look-up, which does no harm where nothing is carried further: whole grey levels instead of floats, the flow at half the
field by DIS ultrafast, which errs as little as the fast one and takes a quarter of its time.
"""
from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, reference_images, warp
from streamdream.dream.reference_images import References
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings

NO_REFERENCES = References()

_own = threading.local()


@dataclass(frozen=True)
class PublishedResidual:
    """What a dream added to a frame: ``levels`` int16 [h, w, 3] in grey levels on the field; ``grey`` uint8
    [h/2, w/2] is that frame; ``others`` are guide, style and mask of that dream, so that display reads no file.
    """

    levels: NDArray[np.int16]
    grey: optical_flow.Grey
    others: References = NO_REFERENCES


def prepare_residual(
    residual: NDArray[np.float32], image: NDArray[np.uint8], others: References = NO_REFERENCES
) -> PublishedResidual:
    """``residual`` [h, w, 3] in [-1, 1] units belongs to the frame ``image`` [H, W, 3]."""
    return PublishedResidual(warp.to_int16_levels(residual), _half_field(image, *residual.shape[:2]), others)


def composite(
    published: PublishedResidual | None, image: NDArray[np.uint8], settings: DreamSettings
) -> NDArray[np.uint8]:
    """The dream of the frame ``image`` uint8 [H, W, 3]; before there is one, the frame."""
    if published is None:
        return image
    cv, levels = cv2(), warp_residual(published, image, settings)
    if levels.shape != image.shape:
        levels = cv.resize(levels, (image.shape[1], image.shape[0]), interpolation=cv.INTER_LINEAR)
    mask = reference_images.mask_weights(published.others, *image.shape[:2])
    if mask is not None:
        levels = np.rint(levels * mask).astype(np.int16)
    dream: NDArray[np.uint8] = cv.add(image, levels, dtype=cv.CV_8U)
    return dream


def warp_residual(published: PublishedResidual, image: NDArray[np.uint8], settings: DreamSettings) -> NDArray[np.int16]:
    """What the dream adds to the frame ``image`` uint8 [H, W, 3], in grey levels, still on the field: [h, w, 3]."""
    cv, (height, width) = cv2(), published.levels.shape[:2]
    grey = _half_field(image, height, width)
    levels = published.levels
    if settings.flow != "none" and grey.shape == published.grey.shape:
        motion = _dis_ultrafast().calc(grey, published.grey, None)
        look = warp.sample_coordinates(cv.resize(motion * _scale(motion, width, height), (width, height)))
        levels = cv.remap(levels, look, None, cv.INTER_LINEAR, borderMode=cv.BORDER_REPLICATE)
    if settings.original_colors:
        levels = cv.transform(levels, warp.LUMA_MATRIX)
    if settings.strength != 1:
        levels = cv.multiply(levels, (settings.strength,) * 3)
    return levels


def _half_field(image: NDArray[np.uint8], height: int, width: int) -> optical_flow.Grey:
    """Grey, at half of [height, width]. Halving is a mean of four pixels and the fastest that OpenCV has; what is left
    then is less than a halving, where the plain look-up between pixels misses none.
    """
    cv, small = cv2(), optical_flow.grey(image)
    height, width = max(height // 2, 1), max(width // 2, 1)
    while small.shape[0] >= 2 * height and small.shape[1] >= 2 * width:
        small = cv.resize(small, (small.shape[1] // 2, small.shape[0] // 2), interpolation=cv.INTER_LINEAR)
    result: optical_flow.Grey = small if small.shape == (height, width) else cv.resize(small, (width, height))
    return result


def _dis_ultrafast() -> Any:
    """One for each thread, as it keeps what it works on."""
    if not hasattr(_own, "engine"):
        _own.engine = cv2().DISOpticalFlow_create(cv2().DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    return _own.engine


def _scale(motion: optical_flow.Flow, width: int, height: int) -> NDArray[np.float32]:
    return np.array([width / motion.shape[1], height / motion.shape[0]], np.float32)
