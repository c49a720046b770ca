"""The maths of one step of gradient ascent on the picture. Plain and eager: the reference of every faster version.

Mordvintsev, Olah, Tyka 2015 (github.com/google/deepdream, dream.ipynb): shift the picture at random, climb the gradient
scaled to a mean magnitude of one, shift back. Two things are ours: the gradient is smoothed and its colour is tamed
before it is normalised, because the raw gradient of an Inception v3 is coloured confetti.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = (0.5, 1.0, 2.0)
"""Widths in pixels of the Gaussians whose mean smooths a gradient (gordicaleksa/pytorch-deepdream averages three)."""

EPSILON = 1e-12


def ascend(picture: Tensor, value: Callable[[Tensor], Tensor], step_size: float, smooth: float, color: float) -> Tensor:
    """One step: ``picture + step_size * g / mean |g|``, then bounded.

    ``picture`` is [1, 3, H, W] RGB in [-1, 1], ``value`` maps it to a scalar, ``step_size`` is in those units. Returns
    a new tensor of the same kind.
    """
    watched = picture.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(value(watched), watched)
    return bound(picture + step_size * shape(gradient.float(), smooth, color))


def shape(gradient: Tensor, smooth: float, color: float) -> Tensor:
    """Smooth, tame the colour, remove the mean, scale to a mean magnitude of one."""
    gradient = blur(gradient, smooth) if smooth > 0 else gradient
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

    Each colour goes through one convolution to three rows of kernels and a second one that sums the three columns, so
    three separable filters cost two small convolutions.
    """
    radius = min(math.ceil(2.5 * smooth * SIGMAS[-1]), min(gradient.shape[-2:]) - 1)
    kernel = _gaussians(smooth, radius, gradient.device)
    planes = gradient.permute(1, 0, 2, 3)  # [3, 1, H, W]
    planes = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(planes, kernel.view(3, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 3, -1, 1) / len(SIGMAS)).permute(1, 0, 2, 3)


@lru_cache(maxsize=64)
def _gaussians(smooth: float, radius: int, device: torch.device) -> Tensor:
    """[3, 2 * radius + 1], each row sums to one."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    rows = [torch.exp(-0.5 * (offsets / (smooth * sigma)) ** 2) for sigma in SIGMAS]
    return torch.stack([row / row.sum() for row in rows])


def roll(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shift down and right, wrapping around: the jitter that keeps the network's grid from showing."""
    return torch.roll(picture, shift, (2, 3))
