"""Carrying the dream from one frame to the next: warp, trust, cut, compose. Pure functions on arrays.

Pictures here are float32 [H, W, 3] in [-1, 1] units or grey uint8 [H, W]; flow is cur -> prev (see flow.py); trust is
float32 [H, W] in 0..1.
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
"""RGB to luma (ITU-R BT.601) in each of the three channels."""
PHOTOMETRIC_SCALE = 16.0
"""Grey levels of mismatch at which photometric trust has fallen to 1/e."""


def propagate(residual: Plane, flow: Flow, trust: Plane, keep: float) -> Plane:
    """The previous residual [H, W, 3] as seen from the current frame: ``warp(residual, flow) * trust * keep``."""
    reach = keep * trust
    result: Plane = cv2().multiply(warp(residual, flow), cv2().merge((reach, reach, reach)))
    return result


def warp(picture: NDArray[np.generic], flow: Flow) -> Plane:
    """Look up ``picture`` [H, W] or [H, W, C] at ``x + flow(x)``; pixels outside take the nearest edge.

    Cubic, because bilinear look-ups, one a frame, blur what is carried.
    """
    result: Plane = cv2().remap(
        picture, sample_coordinates(flow), None, cv2().INTER_CUBIC, borderMode=cv2().BORDER_REPLICATE
    )
    return result


def sample_coordinates(flow: Flow) -> Flow:
    """Where each pixel looks: ``x + flow(x)``, [H, W, 2]."""
    found: Flow = cv2().add(flow, grid(*flow.shape[:2]), dtype=cv2().CV_32F)
    return found


@lru_cache(maxsize=8)
def grid(height: int, width: int) -> Flow:
    """Each pixel's own place, (x, y): [H, W, 2]."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))


def in_bounds(flow: Flow) -> NDArray[np.bool_]:
    """Where the look-up stays within the picture."""
    height, width = flow.shape[:2]
    result: NDArray[np.bool_] = cv2().inRange(sample_coordinates(flow), (0, 0), (width - 1, height - 1)) > 0
    return result


def photometric_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Believe the carried dream where the warped previous frame looks like the current one.

    One flow only, so it suits live use: ``exp(-(e / PHOTOMETRIC_SCALE)^2)`` of the blurred difference ``e``.
    """
    difference = cv2().absdiff(warp(previous.astype(np.float32), flow), current.astype(np.float32))
    difference = cv2().GaussianBlur(difference, (0, 0), 1.5)
    trust: Plane = np.exp(-np.square(difference / PHOTOMETRIC_SCALE)) * in_bounds(flow)
    return trust


def forward_backward_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Believe it where the flow there and the flow back agree, and not at motion edges.

    Ruder, Dosovitskiy, Brox 2016 (arXiv:1604.08610), equations 5 and 6; as in their consistencyChecker the unreliable
    pixels are set to -1 before a small blur, so that they grow by about a pixel.
    """
    back = warp(estimate(previous, current), flow)
    squares = _squared(flow)
    occluded = _squared(flow + back) >= 0.01 * (squares + _squared(back)) + 0.5
    edges = _gradient_energy(flow) > 0.01 * squares + 0.002
    reliable = np.where(occluded | edges | ~in_bounds(flow), np.float32(-1), np.float32(1))
    trust: Plane = np.clip(cv2().GaussianBlur(reliable, (0, 0), 0.8), 0, 1)
    return trust


def _gradient_energy(flow: Flow) -> Plane:
    """|grad u|^2 + |grad v|^2 by forward differences."""
    energy = np.zeros(flow.shape[:2], np.float32)
    energy[:, :-1] = _squared(flow[:, 1:] - flow[:, :-1])
    energy[:-1] += _squared(flow[1:] - flow[:-1])
    return energy


def _squared(vectors: Flow) -> Plane:
    """|v|^2 of [H, W, 2]; written out, as a sum over an axis of two is slow."""
    x, y = vectors[..., 0], vectors[..., 1]
    result: Plane = x * x + y * y
    return result


def full_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Believe it everywhere inside the picture."""
    return in_bounds(flow).astype(np.float32)


TRUSTS: dict[str, Callable[[Grey, Grey, Flow, FlowEstimator], Plane]] = {
    "forward-backward": forward_backward_trust,
    "photometric": photometric_trust,
    "full": full_trust,
}


def trust(name: str, current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust by name. Raises UnknownName."""
    if name not in TRUSTS:
        raise UnknownName("trust", name, TRUSTS)
    return TRUSTS[name](current, previous, flow, estimate)


def stillness_mask(flow: Flow, reach: float) -> Plane:
    """What stands still keeps its dream, what moves loses it: ``exp(-(|flow| / reach)^2)``, 1/e at ``reach`` pixels."""
    still: Plane = np.exp(_squared(flow) * np.float32(-1 / reach**2))
    return still


def frame_similarity(current: Grey, previous: Grey, flow: Flow) -> float:
    """Correlation, -1..1, of the current frame and the warped previous one.

    Near 1 within a shot, whatever moves; a brightness change does not lower it. Two flat pictures are alike. Compared
    at a quarter of the size: the noise of a camera before a plain wall would otherwise be all there is to compare, and
    every frame a cut.
    """
    now, before = _downscale_4x(current), _downscale_4x(previous)
    shrunk = np.array([now.shape[1] / flow.shape[1], now.shape[0] / flow.shape[0]], np.float32)
    warped = warp(before, cv2().resize(flow, now.shape[::-1], interpolation=cv2().INTER_AREA) * shrunk)
    a, b = now - now.mean(), warped - warped.mean()
    energy_a, energy_b = float(np.mean(a * a)), float(np.mean(b * b))
    flat = 9.0  # variance of three grey levels: what noise leaves around one colour
    if max(energy_a, energy_b) < flat:
        return 1.0
    return float(np.mean(a * b)) / float(np.sqrt(max(energy_a, flat) * max(energy_b, flat)))


def _downscale_4x(grey: NDArray[np.generic]) -> Plane:
    size = max(1, grey.shape[1] // 4), max(1, grey.shape[0] // 4)
    small: Plane = cv2().resize(grey.astype(np.float32), size, interpolation=cv2().INTER_AREA)
    return small


def to_luma(residual: Plane) -> Plane:
    """Its brightness alone: added to a frame it leaves the frame's Cb and Cr as they are (ITU-R BT.601)."""
    luma: Plane = cv2().transform(residual, LUMA_MATRIX)
    return luma


def to_int16_levels(residual: Plane, strength: float = 1.0) -> NDArray[np.int16]:
    """[-1, 1] units -> ``strength`` times as many grey levels, rounded."""
    levels: NDArray[np.int16] = cv2().multiply(residual, (127.5 * strength,) * 3, dtype=cv2().CV_16S)
    return levels


def compose(image: NDArray[np.uint8], residual: Plane, strength: float, mask: Plane | None = None
            ) -> NDArray[np.uint8]:
    """Frame uint8 [H, W, 3] + ``strength`` x residual, scaled up to the frame; saturating, not wrapping.

    ``mask`` float32 [H, W, 1] in 0..1, of the frame's size, says how much of it each pixel gets.
    """
    steps = to_int16_levels(residual, strength)
    if steps.shape != image.shape:
        steps = cv2().resize(steps, (image.shape[1], image.shape[0]), interpolation=cv2().INTER_CUBIC)
    if mask is not None:
        steps = np.rint(steps * mask).astype(np.int16)
    dream: NDArray[np.uint8] = cv2().add(image, steps, dtype=cv2().CV_8U)
    return dream
