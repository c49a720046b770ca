"""Local response normalisation, fast: PyTorch's own costs more than the convolutions around it on a CPU."""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models.nodes import Lrn


def normalize(x: Tensor, node: Lrn) -> Tensor:
    """``x * s^-beta`` with ``s = k + scale * (sum of x^2 over 2 * radius + 1 channels)``; x is [N, C, H, W].

    The sum is a 1x1 convolution with a banded kernel of ones, and the gradient is written out: with g at the output,
    ``g * s^-beta - 2 * beta * scale * x * band(g * x * s^(-beta - 1))``.
    """
    result: Tensor = _Normalize.apply(x, node)  # type: ignore[no-untyped-call]
    return result


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, node: Lrn) -> Tensor:
        sums = _band_sum(x * x, node) + node.k
        power = _negative_power(sums, node.beta)
        ctx.save_for_backward(x, sums, power)
        ctx.node = node
        return x * power

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x, sums, power), node, (gradient,) = ctx.saved_tensors, ctx.node, gradients
        direct = gradient * power
        return direct - (2 * node.beta) * x * _band_sum(direct * x / sums, node), None


def _negative_power(sums: Tensor, beta: float) -> Tensor:
    """``sums ** -beta``; square roots are several times faster than a power."""
    if beta == 0.5:
        return torch.rsqrt(sums)
    if beta == 0.75:
        return torch.rsqrt(sums * torch.sqrt(sums))
    return sums**-beta


def _band_sum(squares: Tensor, node: Lrn) -> Tensor:
    return F.conv2d(squares, _band(squares.shape[1], node.radius, node.scale, squares.dtype, squares.device))


@lru_cache(maxsize=16)
def _band(channels: int, radius: int, scale: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    ones = torch.ones(channels, channels, dtype=torch.float32)
    band = ones.tril(radius).triu(-radius) * scale
    return band.to(device, dtype).view(channels, channels, 1, 1).contiguous(memory_format=torch.channels_last)
