"""Trust: how far the carried dream may be believed at each pixel of a frame, 1 for wholly and 0 for not at all.

Every method takes the current and the previous frame, grey uint8 [H, W], the flow between them (see optical_flow.py),
and the flow's estimator for a second, backward flow. It returns float32 [H, W] in 0..1. A method of ``TRUSTS`` that is
in ``DECAYING`` has its distrust decay where it lasts, as ``decay_doubt`` describes.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamdream.dream.optical_flow import Flow, FlowEstimator, Grey
from streamdream.dream.warp import Plane, in_bounds, squared_length, warp
from streamdream.errors import UnknownName
from streamdream.media.opencv import cv2

PHOTOMETRIC_SCALE = 16.0
"""Difference in grey levels at which photometric trust is 1/e."""
MATCH_RANGE = 0.5, 0.9
"""Local correlation: at the first and below there is no trust, at the second and above it is full."""
MIN_VARIANCE = 9.0
"""Least variance of the noise of a frame, in grey levels squared: a standard deviation of three levels."""
NOISE_WEIGHT = 6.0
"""Multiple of the variance of the noise up to which a place counts as plain."""
REGION_PX, REGION_SIGMA = 8, 4.0
"""Doubt is remembered for cells of so many pixels, each with its surroundings: sigma in cells."""
LASTING_RATE = 0.05
"""Share of a frame in the memory of doubt: it forgets within about twenty frames."""
LASTING_RANGE = 0.02, 0.05
"""Lasting doubt: at the first and below, new doubt counts in full, at the second and above not at all. What moves
before a still scene leaves less, as it uncovers a strip at a time; rippled water leaves 0.04 (robust), 0.25."""


def forward_backward_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where it agrees with the backward flow, except at motion edges.

    Ruder, Dosovitskiy, Brox 2016 (arXiv:1604.08610), equations 5 and 6; as in their consistencyChecker, unreliable
    pixels are set to -1 before a small blur, so that they grow by about one pixel.
    """
    back = warp(estimate(previous, current), flow)
    squares = squared_length(flow)
    occluded = squared_length(flow + back) >= 0.01 * (squares + squared_length(back)) + 0.5
    edges = _gradient_energy(flow) > 0.01 * squares + 0.002
    reliable = np.where(occluded | edges | ~in_bounds(flow), np.float32(-1), np.float32(1))
    trust: Plane = np.clip(cv2().GaussianBlur(reliable, (0, 0), 0.8), 0, 1)
    return trust


def _gradient_energy(flow: Flow) -> Plane:
    """Return |grad u|^2 + |grad v|^2 by forward differences: [H, W]."""
    energy = np.zeros(flow.shape[:2], np.float32)
    energy[:, :-1] = squared_length(flow[:, 1:] - flow[:, :-1])
    energy[:-1] += squared_length(flow[1:] - flow[:-1])
    return energy


def photometric_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where the warped previous frame looks like the current one.

    ``exp(-(e / PHOTOMETRIC_SCALE)^2)`` of the blurred difference ``e``. Needs no second flow, so it is fast enough for
    live use.
    """
    difference = cv2().absdiff(warp(previous.astype(np.float32), flow), current.astype(np.float32))
    difference = cv2().GaussianBlur(difference, (0, 0), 1.5)
    trust: Plane = np.exp(-np.square(difference / PHOTOMETRIC_SCALE)) * in_bounds(flow)
    return trust


def full_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow everywhere inside the picture."""
    return in_bounds(flow).astype(np.float32)


def correlation_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where the surroundings of a pixel correlate with those in the warped previous frame.

    Zero-mean normalised cross-correlation, which local brightness and contrast do not change. Needs no second flow.
    """
    low, high = MATCH_RANGE
    correlation = _local_correlation(current.astype(np.float32), warp(previous.astype(np.float32), flow),
                                     max(MIN_VARIANCE, NOISE_WEIGHT * noise_variance(current)))
    trust: Plane = np.clip((correlation - low) * (1 / (high - low)), 0, 1) * in_bounds(flow)
    return trust


def robust_trust(current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Trust the flow where it agrees with the backward flow or what it leads to correlates: only where both fail has
    something come into sight.

    Alone, the first fails where the flow bends (water) or has nothing to hold to (a clear sky), the second in noise.
    """
    agreed = forward_backward_trust(current, previous, flow, estimate)
    trust: Plane = np.maximum(agreed, correlation_trust(current, previous, flow, estimate))
    return trust


def _local_correlation(a: Plane, b: Plane, common: float) -> Plane:
    """Return the correlation, -1..1, of two pictures around each pixel: [H, W].

    The variance ``common`` is added to what both share, so that places with nothing but noise count as alike.
    """
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a = np.maximum(_smooth(a * a) - mean_a * mean_a, 0) + np.float32(common)
    variance_b = np.maximum(_smooth(b * b) - mean_b * mean_b, 0) + np.float32(common)
    covariance = _smooth(a * b) - mean_a * mean_b + np.float32(common)
    result: Plane = covariance / cv2().sqrt(variance_a * variance_b)
    return result


def _smooth(plane: Plane) -> Plane:
    result: Plane = cv2().GaussianBlur(plane, (7, 7), 1.5)
    return result


def noise_variance(grey: Grey) -> float:
    """Return the variance of the noise of a picture, in grey levels squared.

    Immerkaer 1996, "Fast noise variance estimation", with the median in place of the mean, which edges would raise.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    response = np.abs(cv2().filter2D(grey, cv2().CV_32F, kernel)[::4, ::4])
    return float(np.median(response) / 0.6745) ** 2


TRUSTS: dict[str, Callable[[Grey, Grey, Flow, FlowEstimator], Plane]] = {
    "forward-backward": forward_backward_trust,
    "photometric": photometric_trust,
    "full": full_trust,
    "correlation": correlation_trust,
    "robust": robust_trust,
}

DECAYING = ("correlation", "robust")
"""Methods of which doubt decays where it lasts."""


def trust(name: str, current: Grey, previous: Grey, flow: Flow, estimate: FlowEstimator) -> Plane:
    """Compute the trust with the method of that name. Raises UnknownName."""
    if name not in TRUSTS:
        raise UnknownName("trust", name, TRUSTS)
    return TRUSTS[name](current, previous, flow, estimate)


def decay_doubt(trust: Plane, flow: Flow, lasting: Plane | None) -> tuple[Plane, Plane]:
    """Let distrust of a region decay where it lasts. Return the trust to use, and the next ``lasting`` [h/8, w/8].

    ``lasting`` is how far each region was doubted in the last frames, 0..1; None at the start and after a cut. What
    comes into sight is doubted once, and is cleared of the dream that lay there. A texture that changes all the time,
    as water does, is doubted at every frame: nothing old is left to be cleared there, and clearing on would only keep
    a dream from growing. What came from outside the picture is always cleared.
    """
    cv, (height, width) = cv2(), trust.shape
    size = max(1, width // REGION_PX), max(1, height // REGION_PX)
    inside = in_bounds(flow)
    doubt = cv.GaussianBlur(cv.resize((1 - trust) * inside, size, interpolation=cv.INTER_AREA), (0, 0), REGION_SIGMA)
    if lasting is None or lasting.shape != doubt.shape:
        lasting = np.ones_like(doubt)
    low, high = LASTING_RANGE
    forgiven = cv.resize(np.clip((lasting - low) / (high - low), 0, 1), (width, height))
    return trust + (1 - trust) * forgiven * inside, lasting + LASTING_RATE * (doubt - lasting)
