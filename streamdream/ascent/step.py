"""The maths of one step of gradient ascent on the picture. Plain and eager: the reference of every faster version.

Mordvintsev, Olah, Tyka 2015 (github.com/google/deepdream, dream.ipynb): shift the picture at random, climb the gradient
scaled to a mean magnitude of one, shift back. Two things are ours: the gradient is smoothed and
desaturated before it is normalised, because the raw gradient of an Inception v3 is coloured noise.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models.tensor_cache import cached_tensor

if TYPE_CHECKING:
    from streamdream.ascent.terms import Term

SIGMAS = (0.5, 1.0, 2.0)
"""Widths in pixels of the Gaussians whose mean smooths a gradient (gordicaleksa/pytorch-deepdream averages three)."""

EPSILON = 1e-12


def ascend(picture: Tensor, gradients: Sequence[Tensor], terms: Sequence[tuple[Term, float]],
           step_size: float | Tensor, smooth: float, color: float) -> Tensor:
    """One step: ``picture + step_size * direction``, then bounded.

    ``picture`` is [N, 3, H, W] RGB in [-1, 1], ``gradients`` are those of ``terms`` at the picture, [N, 3, H, W];
    ``step_size``, a number or [1], is in units of the picture. Returns a new tensor of the same kind.
    """
    return apply_step(
        picture,
        [smooth_and_desaturate(g, term, smooth, color) for g, (term, _) in zip(gradients, terms, strict=True)],
        terms,
        step_size,
    )


def smooth_and_desaturate(gradient: Tensor, term: Term, smooth: float, color: float) -> Tensor:
    """Smooth what came through the network, and desaturate what is unbounded; a new float32 tensor."""
    # in float32: oneDNN takes 13 ms for the blur in bf16 and 2 so (320x240, AMX), and mixed by a bf16 kernel, a still
    # picture's dream drifted by 2.4 % where this drifts by 1.7 (one seed)
    full = gradient.float() if gradient.dtype.itemsize < 4 else gradient
    smoothed = blur(full, smooth) if smooth > 0 and term.taps else full
    if not term.unbounded:
        return smoothed.to(torch.float32, copy=smoothed is gradient)
    smoothed = smoothed.float()
    grey = smoothed.mean(1, keepdim=True)
    return color * smoothed + (1 - color) * grey


def apply_step(picture: Tensor, refined: Sequence[Tensor], terms: Sequence[tuple[Term, float]],
               step_size: float | Tensor) -> Tensor:
    """Add ``step_size`` times the weighted mean of the terms' normalised gradients, then clamp to [-1, 1].

    ``refined``, the gradients that ``smooth_and_desaturate`` returned, one for each term, are written into. Gradients
    of a dream, a style and a total variation differ by orders of magnitude; with each normalised to a mean magnitude of
    one, a weight means the same for all. Where they are opposed, the step is shorter.
    """
    total = sum(abs(weight) for _, weight in terms)
    moves = [normalize_mean_abs_(g, term.unbounded).mul_(step_size * weight / total)
             for g, (term, weight) in zip(refined, terms, strict=True)]
    for move in moves[1:]:
        moves[0].add_(move)
    return clamp_(moves[0].add_(picture))


def normalize_mean_abs_(gradient: Tensor, centred: bool) -> Tensor:
    """Scale each picture's, in place, to a mean magnitude of one; ``centred``: without its mean.

    With its mean, a gradient that amplifies can push the whole picture brighter or toward one hue, frame after frame.
    """
    if centred:
        gradient.sub_(gradient.mean((2, 3), keepdim=True))
    return gradient.div_(gradient.abs().mean((1, 2, 3), keepdim=True) + EPSILON)


def clamp_(picture: Tensor) -> Tensor:
    """Clamp the picture to its range [-1, 1], in place."""
    return picture.clamp_(-1, 1)


def blur(gradient: Tensor, smooth: float) -> Tensor:
    """Mean of three Gaussians of ``smooth * SIGMAS`` pixels, mirrored at the edges.

    One convolution blurs the rows of each colour with all three, a second one the columns, and sums them.
    """
    radius = min(math.ceil(2.5 * smooth * SIGMAS[-1]), min(gradient.shape[-2:]) - 1)
    across, down = _gaussians(smooth, radius, gradient.device, gradient.dtype)
    padded = F.pad(gradient, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, across), down)


@cached_tensor
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


def shift_circular(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shift down and right, wrapping around: the jitter that keeps the network's grid from showing."""
    return torch.roll(picture, shift, (2, 3))
