"""The maths of one step of gradient ascent on the picture. Plain and eager: the reference of every faster version.

Mordvintsev, Olah, Tyka 2015 (github.com/google/deepdream, dream.ipynb): shift the picture at random, climb the gradient
scaled to a mean magnitude of one, shift back. Ours: before it is normalised, the gradient is split into bands of equal
strength and given the colours of photographs, because the raw gradient of an Inception v3 is coloured noise.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.ascent.gradient_shape import GradientShape
from streamdream.system.tensor_cache import cached_tensor

if TYPE_CHECKING:
    from streamdream.ascent.terms import Term

SIGMAS = (0.5, 1.0, 2.0, 4.0)
"""Widths in pixels of the Gaussians that smooth a gradient: the mean of the first three (gordicaleksa/pytorch-deepdream
averages three), or what lies between them as bands."""
PLAIN_SIGMAS = 3
NATURAL_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A square root of the covariance of RGB in ImageNet's photographs (tensorflow/lucid, optvis/param/color.py)."""

EPSILON = 1e-12


def ascend(picture: Tensor, gradients: Sequence[Tensor], terms: Sequence[tuple[Term, float]],
           step_size: float | Tensor, shape: GradientShape) -> Tensor:
    """One step: ``picture + step_size * direction``, then bounded.

    ``picture`` is [N, 3, H, W] RGB in [-1, 1], ``gradients`` are those of ``terms`` at the picture, [N, 3, H, W];
    ``step_size``, a number or [1], is in units of the picture. Returns a new tensor of the same kind.
    """
    shaped = [shape_gradient(g, term, shape) for g, (term, _) in zip(gradients, terms, strict=True)]
    return apply_step(picture, shaped, terms, step_size)


def shape_gradient(gradient: Tensor, term: Term, shape: GradientShape) -> Tensor:
    """Smooth what came through the network, and colour what is unbounded; a new float32 tensor [N, 3 * parts, H, W]."""
    # in float32: oneDNN takes 13 ms for the blur in bf16 and 2 so (320x240, AMX), and mixed by a bf16 kernel, a still
    # picture's dream drifted by 2.4 % where this drifts by 1.7 (one seed)
    full = gradient.float() if gradient.dtype.itemsize < 4 else gradient
    color = shape.color if term.unbounded else 1.0
    palette = shape.palette if term.unbounded else 0.0
    if palette:
        full = F.conv2d(full, _palette(palette, full.device, full.dtype))
    smoothed = full
    if shape.smooth > 0 and term.taps:
        smoothed = split_bands(full, shape.smooth, shape.bands) if shape.bands else blur(full, shape.smooth)
    if color == 1.0:
        return smoothed.to(torch.float32, copy=smoothed is gradient)
    smoothed = smoothed.float()
    parts = [smoothed[:, at:at + 3] for at in range(0, smoothed.shape[1], 3)]
    shown = [color * part + (1 - color) * part.mean(1, keepdim=True) for part in parts]
    return shown[0] if len(shown) == 1 else torch.cat(shown, 1)


def apply_step(picture: Tensor, shaped: Sequence[Tensor], terms: Sequence[tuple[Term, float]],
               step_size: float | Tensor) -> Tensor:
    """Add ``step_size`` times the weighted mean of the terms' normalised gradients, then clamp to [-1, 1].

    ``shaped``, the gradients that ``shape_gradient`` returned, one for each term, are written into. Gradients
    of a dream, a style and a total variation differ by orders of magnitude; with each normalised to a mean magnitude of
    one, a weight means the same for all. Where they are opposed, the step is shorter.
    """
    total = sum(abs(weight) for _, weight in terms)
    moves = [normalize_mean_abs_(join_bands(g), term.unbounded).mul_(step_size * weight / total)
             for g, (term, weight) in zip(shaped, terms, strict=True)]
    for move in moves[1:]:
        moves[0].add_(move)
    return clamp_(moves[0].add_(picture))


def join_bands(bands: Tensor) -> Tensor:
    """Sum of the bands [N, 3 * parts, H, W], each over its root mean square in its picture; a single one is itself."""
    if bands.shape[1] == 3:
        return bands
    joined: Tensor | None = None
    for at in range(0, bands.shape[1], 3):
        band = bands[:, at:at + 3]
        scaled = band / band.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=EPSILON)
        joined = scaled if joined is None else joined + scaled
    assert joined is not None
    return joined


def normalize_mean_abs_(gradient: Tensor, centred: bool) -> Tensor:
    """Scale each picture's, in place, to a mean magnitude of one; ``centred``: without its mean.

    With its mean, a gradient that amplifies can push the whole picture brighter or toward one hue, frame after frame.
    """
    if centred:
        gradient.sub_(gradient.mean((2, 3), keepdim=True))
    return gradient.div_(gradient.abs().mean((1, 2, 3), keepdim=True).clamp(min=EPSILON))


def clamp_(picture: Tensor) -> Tensor:
    """Clamp the picture to its range [-1, 1], in place."""
    return picture.clamp_(-1, 1)


def blur(gradient: Tensor, smooth: float) -> Tensor:
    """Mean of three Gaussians of ``smooth * SIGMAS`` pixels, mirrored at the edges.

    One convolution blurs the rows of each colour with all three, a second one the columns, and sums them.
    """
    return _separable(gradient, smooth, PLAIN_SIGMAS, True)


def split_bands(gradient: Tensor, smooth: float, count: int) -> Tensor:
    """[N, 3, H, W] -> [N, 3 * count, H, W]: what lies between neighbouring Gaussians of ``smooth * SIGMAS`` pixels, and
    what the widest leaves. Detail below the narrowest is dropped.

    The bands of a Laplacian pyramid (Burt, Adelson 1983), at full size.
    """
    blurred = _separable(gradient, smooth, count, False)
    return torch.cat((blurred[:, :-3] - blurred[:, 3:], blurred[:, -3:]), 1) if count > 1 else blurred


def _separable(gradient: Tensor, smooth: float, count: int, mean: bool) -> Tensor:
    radius = min(math.ceil(2.5 * smooth * SIGMAS[count - 1]), min(gradient.shape[-2:]) - 1)
    across, down = _gaussians(smooth, radius, count, mean, gradient.device, gradient.dtype)
    padded = F.pad(gradient, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, across), down)


@cached_tensor
def _gaussians(smooth: float, radius: int, count: int, mean: bool, device: torch.device, dtype: torch.dtype
               ) -> tuple[Tensor, Tensor]:
    """Kernels [3 * count, 3, 1, K] and [3, 3 * count, K, 1], with ``mean``, else [3 * count, 3 * count, K, 1]: dense,
    as that is faster than grouped; zero between colours.
    """
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    rows = [torch.exp(-0.5 * (offsets / (smooth * sigma)) ** 2) for sigma in SIGMAS[:count]]
    lines = torch.stack([row / row.sum() for row in rows])
    if not mean:
        across = torch.zeros((3 * count, 3, 1, len(offsets)), device=device)
        down = torch.zeros((3 * count, 3 * count, len(offsets), 1), device=device)
        for part in range(3 * count):
            across[part, part % 3, 0] = down[part, part, :, 0] = lines[part // 3]
        return across.to(dtype), down.to(dtype)
    across, down = (torch.zeros(shape, device=device)
                    for shape in ((3 * count, 3, 1, len(offsets)), (3, 3 * count, len(offsets), 1)))
    for color in range(3):
        across[count * color:count * (color + 1), color, 0] = lines
        down[color, count * color:count * (color + 1), :, 0] = lines / count
    return across.to(dtype), down.to(dtype)


@cached_tensor
def _palette(power: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[3, 3, 1, 1]: the natural covariance of colours to that power, 1 on its strongest axis, which is nearly grey."""
    axes, scales, _ = torch.linalg.svd(torch.tensor(NATURAL_COLORS, dtype=torch.float64))
    matrix = axes @ torch.diag((scales / scales[0]) ** power) @ axes.T
    kernel: Tensor = matrix.reshape(3, 3, 1, 1).to(device, dtype)
    return kernel


def shift_circular(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shift down and right, wrapping around: the jitter that keeps the network's grid from showing."""
    return torch.roll(picture, shift, (2, 3))
