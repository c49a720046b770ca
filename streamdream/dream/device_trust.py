"""``trust.py`` on tensors: how far the carried dream may be believed at each pixel.

Every method takes the current and the previous frame, grey [N, 1, h, w] in whole levels, the flow between them, and the
backward flow, previous -> current (None for methods that are not in ``WITH_BACKWARD``), both [N, 2, h, w]. It returns
[N, 1, h, w] in 0..1. Rules as in device_sampling.py.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.dream.device_histogram import median
from streamdream.dream.device_sampling import blur, blurred_area, in_bounds, warp
from streamdream.dream.trust import (
    LASTING_RANGE,
    LASTING_RATE,
    MATCH_RANGE,
    MIN_VARIANCE,
    NOISE_WEIGHT,
    PHOTOMETRIC_SCALE,
    REGION_PX,
    REGION_SIGMA,
)
from streamdream.errors import UnknownName
from streamdream.media.device_resize import resize_linear
from streamdream.system.tensor_cache import cached_tensor

RELIABLE_SIGMA, SURROUNDINGS_SIGMA, SIZE = 0.8, 1.5, 7
"""Of the blurs of what is reliable and of local correlation: their kernels have the same size."""
NOISE_BITS = 10
"""Six times a response to noise is counted up to here: to a standard deviation of 250 grey levels."""

Trust = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def forward_backward(current: Tensor, previous: Tensor, flow: Tensor, backward: Tensor | None) -> Tensor:
    """As ``trust.forward_backward_trust``."""
    assert backward is not None
    reliable = _reliable(flow, warp(backward, flow), in_bounds(flow))
    return blur(reliable, RELIABLE_SIGMA).clamp(0, 1)


def photometric(current: Tensor, previous: Tensor, flow: Tensor, backward: Tensor | None) -> Tensor:
    """As ``trust.photometric_trust``."""
    difference = blur((warp(previous, flow) - current).abs(), 1.5) / PHOTOMETRIC_SCALE
    return torch.exp(-difference * difference) * in_bounds(flow)


def full(current: Tensor, previous: Tensor, flow: Tensor, backward: Tensor | None) -> Tensor:
    """As ``trust.full_trust``."""
    return in_bounds(flow)


def correlation(current: Tensor, previous: Tensor, flow: Tensor, backward: Tensor | None) -> Tensor:
    """As ``trust.correlation_trust``."""
    smooth = blur(_products(current, warp(previous, flow)), SURROUNDINGS_SIGMA, SIZE)
    return _correlated(smooth, current) * in_bounds(flow)


def robust(current: Tensor, previous: Tensor, flow: Tensor, backward: Tensor | None) -> Tensor:
    """As ``trust.robust_trust``, with one look-up and one blur for both methods."""
    assert backward is not None
    inside = in_bounds(flow)
    warped = warp(torch.cat((backward, previous), 1), flow)
    reliable = _reliable(flow, warped[:, :2], inside)
    planes = torch.cat((reliable, _products(current, warped[:, 2:])), 1)
    smooth = blur(planes, (RELIABLE_SIGMA, *(SURROUNDINGS_SIGMA,) * 5), SIZE)
    return torch.maximum(smooth[:, :1].clamp(0, 1), _correlated(smooth[:, 1:], current) * inside)


TRUSTS: dict[str, Trust] = {"forward-backward": forward_backward, "photometric": photometric, "full": full,
                            "correlation": correlation, "robust": robust}

WITH_BACKWARD = ("forward-backward", "robust")
"""Methods that need the backward flow."""


def get(name: str) -> Trust:
    """Return the method of that name. Raises UnknownName."""
    if name not in TRUSTS:
        raise UnknownName("trust", name, TRUSTS)
    return TRUSTS[name]


def _reliable(flow: Tensor, back: Tensor, inside: Tensor) -> Tensor:
    """Return 1 where the flow and the warped backward flow agree, else -1 (Ruder et al. 2016, equations 5 and 6)."""
    next_ones = F.pad(flow, (0, 1, 0, 1), mode="replicate")
    right, below = next_ones[:, :, :-1, 1:] - flow, next_ones[:, :, 1:, :-1] - flow
    vectors = torch.stack((flow, back, flow + back, right, below), 1)
    squares = (vectors * vectors).sum(2)  # [N, 5, h, w]
    agrees = squares[:, 2:3] < 0.01 * (squares[:, :1] + squares[:, 1:2]) + 0.5
    smooth = squares[:, 3:4] + squares[:, 4:] <= 0.01 * squares[:, :1] + 0.002
    return (agrees & smooth).to(flow.dtype) * inside * 2 - 1


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return the planes of which the means make a correlation: [N, 5, h, w]."""
    return torch.cat((a, b, a * a, b * b, a * b), 1)


def _correlated(smooth: Tensor, current: Tensor) -> Tensor:
    """Return the trust of the local correlation of two pictures, from the blurred planes of ``_products``."""
    common = (noise_variance(current) * NOISE_WEIGHT).clamp(min=MIN_VARIANCE)
    means = smooth[:, :2]
    variances = (smooth[:, 2:4] - means * means).clamp(min=0) + common
    covariance = smooth[:, 4:] - means[:, :1] * means[:, 1:] + common
    low, high = MATCH_RANGE
    found = covariance / torch.sqrt(variances[:, :1] * variances[:, 1:])
    return ((found - low) * (1 / (high - low))).clamp(0, 1)


def noise_variance(grey: Tensor) -> Tensor:
    """Return the variance of the noise, in grey levels squared: [N, 1, 1, 1]. As ``trust.noise_variance``.

    The response to whole levels is a multiple of 1/6, so that a histogram has its median.
    """
    response = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), _noise_kernel(grey.device), stride=4)
    deviation = median(response[:, 0].abs().clamp(max=(1 << NOISE_BITS) - 1), NOISE_BITS) * (1 / 6 / 0.6745)
    return deviation * deviation


@cached_tensor
def _noise_kernel(device: torch.device) -> Tensor:
    line = torch.tensor([1.0, -2.0, 1.0])
    return (line[:, None] * line)[None, None].to(device)


def decay_doubt(trust: Tensor, flow: Tensor, lasting: Tensor) -> tuple[Tensor, Tensor]:
    """As ``trust.decay_doubt``: return the trust to use, and the next ``lasting`` [N, 1, h/8, w/8].

    ``lasting`` is 1 everywhere at the start and after a cut (``lasting_shape`` has its size).
    """
    inside = in_bounds(flow)
    distrust = (1 - trust) * inside
    low, high = LASTING_RANGE
    forgiven = resize_linear(((lasting - low) * (1 / (high - low))).clamp(0, 1), trust.shape[2], trust.shape[3])
    doubt = blurred_area(distrust, lasting.shape[2], lasting.shape[3], REGION_SIGMA)
    return trust + distrust * forgiven, torch.lerp(lasting, doubt, LASTING_RATE)


def lasting_shape(height: int, width: int) -> tuple[int, int]:
    """Return the size of the memory of doubt of a field."""
    return max(1, height // REGION_PX), max(1, width // REGION_PX)
