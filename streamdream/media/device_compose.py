"""Add a dream to a picture on its device: ``media/upscale.py`` and ``media/compose.py`` as functions of tensors.

Equal to those within a level, and as those bit for bit equal to the picture where the dream adds nothing. Sizes are
fixed, and nothing waits for the host, so that each function can be a part of a CUDA graph or of an exported graph.
Pictures in HDR are composed on the processor (``media/hdr_compose.py``).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.media.device_resize import resize, resize_cubic, resize_linear
from streamdream.media.opencv import cv2
from streamdream.media.upscale import AMOUNT, SIGMA
from streamdream.media.upscale import dither as add_thresholds
from streamdream.system.tensor_cache import cached_tensor

Matrix = tuple[tuple[float, ...], ...]
Strength = float | Tensor
"""A number, or [N, 1, 1, 1]."""
LUMA_WEIGHTS = (0.299, 0.587, 0.114)


def compose_rgb(image: Tensor, residual: Tensor, strength: Strength = 1.0, mask: Tensor | None = None,
                original_colors: bool = False) -> Tensor:
    """Add ``strength`` x ``residual``, scaled up, to ``image``: uint8 [N, H, W, 3] -> the same.

    ``residual`` is [N, 3, h, w] in [-1, 1] units; with ``original_colors`` its luma is added. ``mask``, [N, 1, H, W] in
    0..1, is the opacity of the dream.
    """
    added = upscale(_in_levels(residual, strength, original_colors), *image.shape[1:3])
    return _add_dithered(image.permute(0, 3, 1, 2), added, mask).permute(0, 2, 3, 1).contiguous()


def compose_planes(planes: Sequence[Tensor], residual: Tensor, strength: Strength, matrix: Matrix, highest: int,
                   mask: Tensor | None = None, original_colors: bool = False) -> list[Tensor]:
    """Add ``strength`` x ``residual`` [1, 3, h, w] to the three components of a picture, in their units.

    ``planes`` are uint8 or uint16 [k, height, width], components of one size together: Y', then Cb and Cr; or all
    three. ``matrix`` has the rows of ``component_matrix``, ``highest`` is the largest sample, ``mask`` [1, 1, H, W].
    """
    if original_colors:
        residual = to_luma(residual).expand(-1, 3, -1, -1)
    levels = (matrix_tensor(matrix, residual.device) @ residual.flatten(2)).view(residual.shape) * (strength * 0.5)
    scales = [_scale(levels, *samples.shape[1:]) for samples in planes]
    crisp = (_sharpen(levels, [scale for scale, samples in zip(scales, planes, strict=True) for _ in samples])
             if max(scales) > 1 else None)
    result: list[Tensor] = []
    first = 0
    for scale, samples in zip(scales, planes, strict=True):
        size, part = samples.shape[1:], slice(first, first + len(samples))
        added = (_enlarge(crisp.pictures[:, part], crisp.extremes[:, part], *size) if crisp and scale > 1
                 else resize(levels[:, part], *size))
        total = (_add_dithered(samples[None], added, mask, first) if samples.dtype == torch.uint8
                 else _add_rounded(samples[None], added, mask, highest))
        result.append(total[0])
        first += len(samples)
    return result


def residual_levels(residual: Tensor, strength: Strength = 1.0, mask: Tensor | None = None,
                    original_colors: bool = False) -> Tensor:
    """What the page adds to its picture: uint8 [N, 2h, w, 3], the positive part above the negative one (negated).

    ``residual`` is [N, 3, h, w] in [-1, 1] units, ``mask`` [N, 1, h, w].
    """
    levels = _in_levels(residual, strength, original_colors)
    if mask is not None:
        levels = levels * mask
    halves = torch.cat((levels, -levels), 2).add(0.5).clamp(0, 255).to(torch.uint8)
    return halves.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()


def to_luma(residual: Tensor) -> Tensor:
    """[N, 3, h, w] RGB -> [N, 1, h, w]: added to all three colours, it changes neither Cb nor Cr (ITU-R BT.601)."""
    return (residual * matrix_tensor((LUMA_WEIGHTS,), residual.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def upscale(levels: Tensor, height: int, width: int) -> Tensor:
    """[N, C, h, w] -> [N, C, height, width]: an unsharp mask, cubic interpolation, both clamped to the 3x3 pixels
    around; only resized where that is not larger. See ``media/upscale.py``.
    """
    scale = _scale(levels, height, width)
    if scale <= 1:
        return resize(levels, height, width)
    return _enlarge(*_sharpen(levels, [scale] * levels.shape[1]), height, width)


class Sharpened(NamedTuple):
    """What is scaled up."""

    pictures: Tensor
    """[N, C, h, w]."""
    extremes: Tensor
    """[N, C, 2, h, w]: the smallest and the largest of the 3x3 pixels around."""


def _scale(levels: Tensor, height: int, width: int) -> float:
    return min(height / levels.shape[2], width / levels.shape[3])


def _sharpen(levels: Tensor, scales: Sequence[float]) -> Sharpened:
    """Before each channel is scaled up by its own factor. Channels are planes: PyTorch interpolates those faster."""
    levels = levels.contiguous()
    amounts = tuple(AMOUNT * min(max(scale - 1, 0), 1) for scale in scales)
    kernel, signs = unsharp_kernel(amounts, levels.device), sign_pair(levels.device)
    sharp = F.conv2d(F.pad(levels, (2, 2, 2, 2), mode="reflect"), kernel, groups=len(amounts))
    largest = F.max_pool2d((levels[:, :, None] * signs).flatten(1, 2), 3, 1, 1)  # of -levels and levels
    return Sharpened(sharp, largest.view(*levels.shape[:2], 2, *levels.shape[2:]) * signs)


def _enlarge(sharp: Tensor, extremes: Tensor, height: int, width: int) -> Tensor:
    bounds = resize_linear(extremes.flatten(1, 2), height, width).view(*sharp.shape[:2], 2, height, width)
    return resize_cubic(sharp, height, width).clamp(*bounds.unbind(2))


@cached_tensor
def unsharp_kernel(amounts: tuple[float, ...], device: torch.device) -> Tensor:
    """[C, 1, 5, 5]: the picture + amount x (the picture - its Gaussian of 5x5)."""
    row = cv2().getGaussianKernel(5, SIGMA)
    identity = np.zeros((5, 5))
    identity[2, 2] = 1
    kernels = [identity + amount * (identity - row * row.T) for amount in amounts]
    return torch.tensor(np.stack(kernels)[:, None], dtype=torch.float32, device=device)


@cached_tensor
def zero(device: torch.device) -> Tensor:
    return torch.zeros(1, device=device)


@cached_tensor
def sign_pair(device: torch.device) -> Tensor:
    return torch.tensor([-1.0, 1.0], device=device).view(2, 1, 1)


def _dither_thresholds(height: int, width: int, first: int, count: int, device: torch.device) -> Tensor:
    """[count, height, width] in 0..1, both excluded: those of ``media/upscale.py`` + 0.5, for components ``first`` to
    ``first + count - 1``. Samples of 8 bits + a threshold are those samples when cut to whole numbers.
    """
    thresholds = np.stack([add_thresholds(np.zeros((height, width), np.float32), first + number)
                           for number in range(count)])
    margin = 2.0**-15  # is not lost when added to 255 in float32
    return torch.from_numpy(np.clip(thresholds + np.float32(0.5), margin, 1 - margin)).to(device)


dither_thresholds = cached_tensor(_dither_thresholds, size=12)
"""As ``_dither_thresholds``: of few sizes, as those of 4K take 99 MB."""


@cached_tensor
def matrix_tensor(rows: Matrix, device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device=device)


def _in_levels(residual: Tensor, strength: Strength, original_colors: bool) -> Tensor:
    """[N, 3, h, w] in [-1, 1] units -> [N, 3, h, w] in grey levels; [N, 1, h, w] with ``original_colors``."""
    return (to_luma(residual) if original_colors else residual) * (strength * 127.5)


def _add_dithered(samples: Tensor, added: Tensor, mask: Tensor | None, first: int = 0) -> Tensor:
    """uint8 [N, C, H, W] + levels [N, C or 1, H, W], as uint8: dithered, saturated."""
    count, height, width = samples.shape[1:]
    thresholds = dither_thresholds(height, width, first, count, added.device)
    added = added + thresholds if mask is None else torch.addcmul(thresholds, added, resize(mask, height, width))
    return (samples + added).clamp(0, 255).to(torch.uint8)


def _add_rounded(samples: Tensor, added: Tensor, mask: Tensor | None, highest: int) -> Tensor:
    """As ``_add_dithered``, for uint16: rounded. A sample above ``highest``, of a broken file, may stay."""
    before = samples.to(torch.float32)
    total = before + added if mask is None else torch.addcmul(before, added, resize(mask, *samples.shape[2:]))
    return total.round().clamp(zero(before.device), before.clamp_min(highest)).to(torch.uint16)
