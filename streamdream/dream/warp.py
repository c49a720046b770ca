"""Warp the residual from one frame to the next, and compose: with trust and scene cuts. Pure functions on arrays.

Pictures are float32 [H, W, 3] in [-1, 1] units or grey uint8 [H, W]; flow is cur -> prev (see optical_flow.py); trust
is float32 [H, W] in 0..1.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamdream.dream.optical_flow import Flow, FlowEstimator, Grey
from streamdream.errors import UnknownName
from streamdream.media.opencv import cv2

Plane = NDArray[np.float32]
"""[H, W] or [H, W, C]."""

LUMA_MATRIX = np.tile(np.array([0.299, 0.587, 0.114], np.float32), (3, 1))
"""RGB to luma (ITU-R BT.601), repeated in all three channels."""
PHOTOMETRIC_SCALE = 16.0
"""Difference in grey levels at which photometric trust is 1/e."""


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
    """Return where the sampled position is inside the picture: [H, W]."""
    height, width = flow.shape[:2]
    result: NDArray[np.bool_] = cv2().inRange(sample_coordinates(flow), (0, 0), (width - 1, height - 1)) > 0
    return result


def photometric_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where the warped previous frame looks like the current one.

    ``exp(-(e / PHOTOMETRIC_SCALE)^2)`` of the blurred difference ``e``. Needs no second flow, so it is fast enough for
    live use.
    """
    difference = cv2().absdiff(warp(previous.astype(np.float32), flow), current.astype(np.float32))
    difference = cv2().GaussianBlur(difference, (0, 0), 1.5)
    trust: Plane = np.exp(-np.square(difference / PHOTOMETRIC_SCALE)) * in_bounds(flow)
    return trust


def forward_backward_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where it agrees with the backward flow, except at motion edges.

    Ruder, Dosovitskiy, Brox 2016 (arXiv:1604.08610), equations 5 and 6; as in their consistencyChecker, unreliable
    pixels are set to -1 before a small blur, so that they grow by about one pixel.
    """
    back = warp(estimate(previous, current), flow)
    squares = _squared(flow)
    occluded = _squared(flow + back) >= 0.01 * (squares + _squared(back)) + 0.5
    edges = _gradient_energy(flow) > 0.01 * squares + 0.002
    reliable = np.where(occluded | edges | ~in_bounds(flow), np.float32(-1), np.float32(1))
    trust: Plane = np.clip(cv2().GaussianBlur(reliable, (0, 0), 0.8), 0, 1)
    return trust


def _gradient_energy(flow: Flow) -> Plane:
    """Return |grad u|^2 + |grad v|^2 by forward differences: [H, W]."""
    energy = np.zeros(flow.shape[:2], np.float32)
    energy[:, :-1] = _squared(flow[:, 1:] - flow[:, :-1])
    energy[:-1] += _squared(flow[1:] - flow[:-1])
    return energy


def _squared(vectors: Flow) -> Plane:
    """Return |v|^2 of [H, W, 2]; written out, as NumPy's sum over an axis of length two is slow."""
    x, y = vectors[..., 0], vectors[..., 1]
    result: Plane = x * x + y * y
    return result


def full_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow everywhere inside the picture."""
    return in_bounds(flow).astype(np.float32)


TRUSTS: dict[str, Callable[[Grey, Grey, Flow, FlowEstimator], Plane]] = {
    "forward-backward": forward_backward_trust,
    "photometric": photometric_trust,
    "full": full_trust,
}


def trust(name: str, current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Compute the trust with the method of that name. Raises UnknownName."""
    if name not in TRUSTS:
        raise UnknownName("trust", name, TRUSTS)
    return TRUSTS[name](current, previous, flow, estimate)


def stillness_mask(flow: Flow, scale: float) -> Plane:
    """Return ``exp(-(|flow| / scale)^2)``: 1 where nothing moves, 1/e for a motion of ``scale`` pixels."""
    mask: Plane = np.exp(_squared(flow) * np.float32(-1 / scale**2))
    return mask


def frame_similarity(current: Grey, previous: Grey, flow: Flow) -> float:
    """Return the correlation, -1..1, of the current frame and the warped previous one.

    It is near 1 within a shot, also under motion and changes of brightness, and 1 for two flat pictures. Frames are
    compared at a quarter of their size: otherwise only noise would be compared before a plain wall, and every frame
    would count as a cut.
    """
    small, small_previous = _downscale_4x(current), _downscale_4x(previous)
    scale = np.array([small.shape[1] / flow.shape[1], small.shape[0] / flow.shape[0]], np.float32)
    small_flow = cv2().resize(flow, small.shape[::-1], interpolation=cv2().INTER_AREA) * scale
    warped = warp(small_previous, small_flow)
    a, b = small - small.mean(), warped - warped.mean()
    variance_a, variance_b = float(np.mean(a * a)), float(np.mean(b * b))
    flat = 9.0  # variance of the noise in a picture of one colour: a standard deviation of three grey levels
    if max(variance_a, variance_b) < flat:
        return 1.0
    return float(np.mean(a * b)) / float(np.sqrt(max(variance_a, flat) * max(variance_b, flat)))


def _downscale_4x(grey: NDArray[np.generic]) -> Plane:
    size = max(1, grey.shape[1] // 4), max(1, grey.shape[0] // 4)
    small: Plane = cv2().resize(grey.astype(np.float32), size, interpolation=cv2().INTER_AREA)
    return small


def to_luma(residual: Plane) -> Plane:
    """Return the luma of a residual: added to a frame, it does not change the frame's Cb and Cr (ITU-R BT.601)."""
    luma: Plane = cv2().transform(residual, LUMA_MATRIX)
    return luma


def to_int16_levels(residual: Plane, strength: float = 1.0) -> NDArray[np.int16]:
    """Convert [-1, 1] units to grey levels times ``strength``, rounded."""
    levels: NDArray[np.int16] = cv2().multiply(residual, (127.5 * strength,) * 3, dtype=cv2().CV_16S)
    return levels


def compose(image: NDArray[np.uint8], residual: Plane, strength: float, mask: Plane | None = None
            ) -> NDArray[np.uint8]:
    """Add ``strength`` x residual, scaled up to the frame, to the frame uint8 [H, W, 3], with saturation.

    ``mask``, float32 [H, W, 1] in 0..1, is the opacity of the dream at each pixel of the frame.
    """
    levels = to_int16_levels(residual, strength)
    if levels.shape != image.shape:
        levels = cv2().resize(levels, (image.shape[1], image.shape[0]), interpolation=cv2().INTER_CUBIC)
    if mask is not None:
        levels = np.rint(levels * mask).astype(np.int16)
    dream: NDArray[np.uint8] = cv2().add(image, levels, dtype=cv2().CV_8U)
    return dream
