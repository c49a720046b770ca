"""The maths of one step of gradient ascent on the picture. Plain and eager: the reference of every faster version.

Mordvintsev, Olah, Tyka 2015 (github.com/google/deepdream, dream.ipynb): shift the picture at random, climb the gradient
scaled to a mean magnitude of one, shift back. Two things are ours: the gradient is smoothed and its colour is tamed
before it is normalised, because the raw gradient of an Inception v3 is coloured confetti.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = (0.5, 1.0, 2.0)
"""Widths in pixels of the Gaussians whose mean smooths a gradient (gordicaleksa/pytorch-deepdream averages three)."""

EPSILON = 1e-12


def ascend(picture: Tensor, gradient: Tensor, step_size: float, smooth: float, color: float) -> Tensor:
    """One step: ``picture + step_size * g / mean |g|``, then bounded.

    ``picture`` is [1, 3, H, W] RGB in [-1, 1], ``gradient`` what climbs, at the picture; ``step_size`` is in those
    units. Returns a new tensor of the same kind.
    """
    return bound(picture + step_size * shape(gradient, smooth, color))


def mix(gradients: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """One gradient of several terms, each brought to a mean magnitude of one and then weighted.

    The numbers that a dream, a style and a total variation give differ by orders of magnitude; this way a weight means
    the same for all. The size of the result does not matter, as ``shape`` scales it.
    """
    if len(gradients) == 1:
        return gradients[0] if weights[0] > 0 else -gradients[0]
    scaled = [weight * g.float() / (g.float().abs().mean() + EPSILON)
              for g, weight in zip(gradients, weights, strict=True)]
    return sum(scaled[1:], scaled[0])


def shape(gradient: Tensor, smooth: float, color: float) -> Tensor:
    """Smooth, tame the colour, remove the mean, scale to a mean magnitude of one; float32."""
    gradient = (blur(gradient, smooth) if smooth > 0 else gradient).float()
    grey = gradient.mean(1, keepdim=True)
    gradient = torch.lerp(grey.expand_as(gradient), gradient, color)
    # Without its mean the gradient cannot push the whole picture brighter or toward one hue, frame after frame.
    gradient = gradient - gradient.mean((2, 3), keepdim=True)
    return gradient / (gradient.abs().mean() + EPSILON)


def bound(picture: Tensor) -> Tensor:
    """Keep the picture a picture."""
    return picture.clamp(-1, 1)


def blur(gradient: Tensor, smooth: float) -> Tensor:
    """Mean of three Gaussians of ``smooth * SIGMAS`` pixels, mirrored at the edges.

    One convolution blurs the rows of each colour with all three, a second one the columns, and sums them; in the
    gradient's own dtype, as it is no more exact than that.
    """
    radius = min(math.ceil(2.5 * smooth * SIGMAS[-1]), min(gradient.shape[-2:]) - 1)
    across, down = _gaussians(smooth, radius, gradient.device, gradient.dtype)
    padded = F.pad(gradient, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, across), down)


@lru_cache(maxsize=64)
def _gaussians(smooth: float, radius: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Kernels [9, 3, 1, K] and [3, 9, K, 1]: dense, as that is faster than grouped; zero between colours."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    rows = [torch.exp(-0.5 * (offsets / (smooth * sigma)) ** 2) for sigma in SIGMAS]
    lines = torch.stack([row / row.sum() for row in rows])
    across, down = (torch.zeros(shape, device=device) for shape in ((9, 3, 1, len(offsets)), (3, 9, len(offsets), 1)))
    for color in range(3):
        across[3 * color:3 * color + 3, color, 0] = lines
        down[color, 3 * color:3 * color + 3, :, 0] = lines / len(SIGMAS)
    return across.to(dtype), down.to(dtype)


def roll(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shift down and right, wrapping around: the jitter that keeps the network's grid from showing."""
    return torch.roll(picture, shift, (2, 3))
