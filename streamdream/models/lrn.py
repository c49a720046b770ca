"""Local response normalisation, fast: PyTorch's own costs more than the convolutions around it on a CPU.

``y = x * s^-beta`` with ``s = k + scale * (sum of x^2 over 2 * radius + 1 channels)``. The sum is a 1x1 convolution
with a banded kernel of ones. With g at the output, the gradient at x is
``g * s^-beta - 2 * beta * scale * x * band(g * x * s^(-beta - 1))``.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models.nodes import Lrn
from streamdream.system.tensor_cache import cached_tensor

Saved = tuple[Tensor, Tensor, Tensor]


def forward(x: Tensor, node: Lrn) -> tuple[Tensor, Saved]:
    """``x`` [N, C, H, W] -> the same shape, and what ``backward`` needs. fp16 does not hold the square of 256, and
    Caffe's networks have such features: it is computed in float32.
    """
    dtype = x.dtype
    x = x.float() if dtype == torch.float16 else x
    sums = F.conv2d(x * x, band(x.shape[1], node.radius, node.scale, x.dtype, x.device), _constant(x, node.k))
    power = _negative_power(sums, node.beta)
    return (x * power).to(dtype), (x, sums, power)


def backward(gradient: Tensor, saved: Saved, node: Lrn) -> Tensor:
    x, sums, power = saved
    direct = gradient.to(x.dtype) * power
    kernel = band(x.shape[1], node.radius, -2 * node.beta * node.scale, x.dtype, x.device)
    return torch.addcmul(direct, x, F.conv2d((direct * x).div_(sums), kernel)).to(gradient.dtype)


def _negative_power(sums: Tensor, beta: float) -> Tensor:
    """``sums ** -beta``; square roots are faster than a power."""
    if beta == 0.5:
        return torch.rsqrt(sums)
    if beta == 0.75:
        return torch.sqrt(sums).mul_(sums).rsqrt_()
    return sums**-beta


def _constant(x: Tensor, value: float) -> Tensor:
    return torch.full((x.shape[1],), value, dtype=x.dtype, device=x.device)


@cached_tensor
def band(channels: int, radius: int, scale: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The kernel of a 1x1 convolution that sums channels up to ``radius`` away, times ``scale``."""
    ones = torch.ones(channels, channels, dtype=torch.float32)
    sums = ones.tril(radius).triu(-radius) * scale
    return sums.to(device, dtype).view(channels, channels, 1, 1).contiguous(memory_format=torch.channels_last)
