"""Histograms of whole numbers on tensors, exact and without atomic or data-dependent operations, for every engine."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from streamdream.system.tensor_cache import cached_tensor

LARGEST_HALF = 2048
"""Whole numbers up to here are exact in float16, which takes a GPU half the memory."""


def histogram(numbers: Tensor, bits: int) -> Tensor:
    """Count whole numbers below ``2 ** bits`` ([N, h, w]): [N, 2 ** bits].

    A product of matrices: each number is a row of zeros with a one for its upper, and one for its lower half of bits.
    The products are those of lines, as one of all pixels would keep a device's matrix units waiting for one block.
    Pixels are last in memory: with the ones of a pixel last, OpenVINO takes six times as long.
    """
    half = 1 << bits // 2
    upper = torch.floor(numbers * (1 / half))
    digits = torch.stack((upper, torch.sub(numbers, upper, alpha=half)), 2)
    dtype = torch.float16 if numbers.is_cuda and numbers.shape[2] <= LARGEST_HALF else numbers.dtype
    ones = (digits.unsqueeze(3) == _digits(half, numbers.device)).to(dtype)  # [N, h, 2, half, w]
    return (ones[:, :, 0] @ ones[:, :, 1].mT).float().sum(1).reshape(numbers.shape[0], -1)


def cumulate(counts: Tensor) -> Tensor:
    """Return the running sums of [N, B * B]: how many numbers are at most as large.

    Within lines of B and over lines, as one triangle of all would be megabytes in an engine's file.
    """
    size = math.isqrt(counts.shape[1])
    upto, before = _triangles(size, counts.device)
    within = (counts.reshape(-1, size, 1, size) * upto).sum(3)
    lines = (within[:, None, :, -1] * before).sum(2, keepdim=True)
    return (within + lines).flatten(1)


def first_reaching(cumulative: Tensor, wanted: Tensor) -> Tensor:
    """Return for each of ``wanted`` [N, W] the first of the ``cumulative`` counts [N, B] as large: as searchsorted."""
    return (cumulative[:, None, :] < wanted[:, :, None]).to(wanted.dtype).sum(2)


def median(numbers: Tensor, bits: int) -> Tensor:
    """Return the median of whole numbers below ``2 ** bits`` ([N, h, w]): [N, 1, 1, 1]; of an even count the
    mean of the two in the middle.
    """
    cumulative = cumulate(histogram(numbers, bits))
    found = first_reaching(cumulative, _middle(numbers[0].numel(), numbers.device))
    return found.mean(1).reshape(-1, 1, 1, 1)


@cached_tensor
def _digits(count: int, device: torch.device) -> Tensor:
    """Return 0 .. count - 1: [count, 1]."""
    return torch.arange(count, dtype=torch.float32)[:, None].to(device)


@cached_tensor
def _triangles(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two [size, size]: 1 up to the diagonal, and 1 before it."""
    ones = torch.ones(size, size)
    return ones.tril().to(device), ones.tril(-1).to(device)


@cached_tensor
def _middle(count: int, device: torch.device) -> Tensor:
    """Return the two ranks, from 1, of the middle of that many numbers: [1, 2]."""
    return torch.tensor([[(count + 1) // 2, count // 2 + 1]], dtype=torch.float32).to(device)
