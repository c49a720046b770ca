"""Warp the residual from one frame to the next. Pure functions on arrays.

Pictures are float32 [H, W, 3] in [-1, 1] units or grey uint8 [H, W]; flow is cur -> prev (see optical_flow.py); trust
is float32 [H, W] in 0..1 (see trust.py).
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2

Plane = NDArray[np.float32]
"""[H, W] or [H, W, C]."""
Flow = NDArray[np.float32]
"""[H, W, 2]."""

LUMA_MATRIX = np.tile(np.array([0.299, 0.587, 0.114], np.float32), (3, 1))
"""RGB to luma (ITU-R BT.601), repeated in all three channels."""
FLOW_NOISE = 0.25
"""Pixels. Estimated flow is never exactly 0, so that without it the outermost pixels lost their dream all the time."""


def warp_residual(residual: Plane, flow: Flow, trust: Plane, keep: float) -> Plane:
    """Warp the previous residual [H, W, 3] to the current frame: ``warp(residual, flow) * trust * keep``."""
    weight = keep * trust
    result: Plane = cv2().multiply(warp(residual, flow), cv2().merge((weight, weight, weight)))
    return result


def warp(picture: NDArray[np.generic], flow: Flow) -> Plane:
    """Sample ``picture`` [H, W] or [H, W, C] at ``x + flow(x)``; pixels outside take the value of the nearest edge.

    Cubic, as bilinear interpolation at every frame would blur the residual.
    """
    result: Plane = cv2().remap(
        picture, sample_coordinates(flow), None, cv2().INTER_CUBIC, borderMode=cv2().BORDER_REPLICATE
    )
    return result


def sample_coordinates(flow: Flow) -> Flow:
    """Return the position to sample for each pixel: ``x + flow(x)``, [H, W, 2]."""
    coordinates: Flow = cv2().add(flow, grid(*flow.shape[:2]), dtype=cv2().CV_32F)
    return coordinates


@lru_cache(maxsize=8)
def grid(height: int, width: int) -> Flow:
    """Return the position (x, y) of each pixel: [H, W, 2]."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))


def in_bounds(flow: Flow) -> NDArray[np.bool_]:
    """Return where the sampled position is inside the picture, or ``FLOW_NOISE`` outside: [H, W]."""
    height, width = flow.shape[:2]
    lowest, highest = (-FLOW_NOISE,) * 2, (width - 1 + FLOW_NOISE, height - 1 + FLOW_NOISE)
    result: NDArray[np.bool_] = cv2().inRange(sample_coordinates(flow), lowest, highest) > 0
    return result


def squared_length(vectors: Flow) -> Plane:
    """Return |v|^2 of [H, W, 2]; written out, as NumPy's sum over an axis of length two is slow."""
    x, y = vectors[..., 0], vectors[..., 1]
    result: Plane = x * x + y * y
    return result


def stillness_mask(flow: Flow, scale: float) -> Plane:
    """Return ``exp(-(|flow| / scale)^2)``: 1 where nothing moves, 1/e for a motion of ``scale`` pixels."""
    mask: Plane = np.exp(squared_length(flow) * np.float32(-1 / scale**2))
    return mask


def to_luma(residual: Plane) -> Plane:
    """Return the luma of a residual: added to a frame, it does not change the frame's Cb and Cr (ITU-R BT.601)."""
    luma: Plane = cv2().transform(residual, LUMA_MATRIX)
    return luma


def to_int16_levels(residual: Plane, strength: float = 1.0) -> NDArray[np.int16]:
    """Convert [-1, 1] units to grey levels times ``strength``, rounded."""
    levels: NDArray[np.int16] = cv2().multiply(residual, (127.5 * strength,) * 3, dtype=cv2().CV_16S)
    return levels
