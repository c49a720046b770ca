"""Blurs, resizes and look-ups on tensors, as OpenCV computes them: what the frame's way on a device is made of.

Pictures are float32 [N, C, h, w], flow is [N, 2, h, w] (dx, dy) in pixels. Nothing waits for the host, and shapes are
static, so that a CUDA graph and every engine can hold it. Constants are cached: call a function once before it is
traced (see system/tensor_cache.py).
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamdream.dream.warp import FLOW_NOISE, LUMA_MATRIX
from streamdream.media.device_resize import area_weights, resize_area
from streamdream.system.tensor_cache import cached_tensor

Each = float | tuple[float, ...]
"""One number for all channels, or one for each."""
Matrix = NDArray[np.float64]
GREY_WEIGHTS, GREY_SHIFT = (9798, 19235, 3735), 15
"""Of RGB in whole numbers, and the bits after their point: as OpenCV's cvtColor has them for 8 bits."""


# --- blurs ------------------------------------------------------------------------------------------------------------

def blur(x: Tensor, sigma: Each, size: int = 0) -> Tensor:
    """Blur as cv2.GaussianBlur does float32 pictures, mirrored at the edges (101).

    ``sigma`` may be a tuple with one for each channel; ``size`` 0 is OpenCV's size of the kernel for sigma.
    """
    (height, width), sigmas = x.shape[2:], _each(sigma, x.shape[1])
    sizes = tuple(size or kernel_size(value) for value in sigmas)
    radius = max(sizes) // 2
    if radius >= min(height, width):  # mirrored more than once
        down, across = (_blur_matrices(sigmas, sizes, length, x.device) for length in (height, width))
        return down @ x @ across.mT
    across, down = _kernels(sigmas, sizes, x.device)
    padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, across, groups=x.shape[1]), down, groups=x.shape[1])


def kernel_size(sigma: float) -> int:
    """Return the size of the kernel that OpenCV takes for float32."""
    return round(sigma * 8 + 1) | 1


def _each(sigma: Each, channels: int) -> tuple[float, ...]:
    return sigma if isinstance(sigma, tuple) else (float(sigma),) * channels


def _gaussian(sigma: float, size: int) -> Matrix:
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-offsets**2 / (2 * sigma**2))
    normalized: Matrix = weights / weights.sum()
    return normalized


@cached_tensor
def _kernels(sigmas: tuple[float, ...], sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return kernels [C, 1, 1, K] and [C, 1, K, 1] for each channel alone."""
    longest = max(sizes)
    rows = np.zeros((len(sigmas), longest))
    for row, sigma, size in zip(rows, sigmas, sizes, strict=True):
        margin = (longest - size) // 2
        row[margin:longest - margin] = _gaussian(sigma, size)
    lines = torch.from_numpy(rows.astype(np.float32)).to(device)
    return lines[:, None, None, :].contiguous(), lines[:, None, :, None].contiguous()


@cached_tensor
def _blur_matrices(sigmas: tuple[float, ...], sizes: tuple[int, ...], length: int, device: torch.device) -> Tensor:
    """Return the matrices [1, C, length, length] that blur columns of that length."""
    return _to_tensor(np.stack([_blur_matrix(*pair, length) for pair in zip(sigmas, sizes, strict=True)])[None], device)


def _blur_matrix(sigma: float, size: int, length: int) -> Matrix:
    matrix = np.zeros((length, length))
    period = max(2 * length - 2, 1)
    for offset, weight in enumerate(_gaussian(sigma, size), -(size // 2)):
        at = (np.arange(length) + offset) % period
        np.add.at(matrix, (np.arange(length), np.minimum(at, period - at) if length > 1 else at), weight)
    return matrix


# --- resizes ----------------------------------------------------------------------------------------------------------

def blurred_area(x: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Scale down by area averages and blur that by ``sigma``, in two products of matrices."""
    down, across = (_blurred_area(length, target, sigma, x.device)
                    for length, target in zip(x.shape[2:], (height, width), strict=True))
    return down @ x @ across.mT


@cached_tensor
def _blurred_area(length: int, target: int, sigma: float, device: torch.device) -> Tensor:
    area = area_weights(length, target, True, torch.device("cpu")).numpy()
    return _to_tensor(_blur_matrix(sigma, kernel_size(sigma), target) @ area, device)


def downscale_area(levels: Tensor, height: int, width: int) -> Tensor:
    """Scale whole levels 0..255 down as ``media.resize.downscale_area`` does: in stages, each rounded."""
    while levels.shape[2] >= 3 * height and levels.shape[3] >= 3 * width:
        levels = _rounded_area(levels, levels.shape[2] // 2, levels.shape[3] // 2)
    return _rounded_area(levels, height, width)


def _rounded_area(levels: Tensor, height: int, width: int) -> Tensor:
    if levels.shape[2:] == (height, width):
        return levels
    smaller = resize_area(levels, height, width)
    if levels.shape[2:] == (2 * height, 2 * width):
        return torch.floor(smaller + 0.5)  # OpenCV has (a + b + c + d + 2) >> 2 here
    return torch.round(smaller)


# --- look-ups ---------------------------------------------------------------------------------------------------------

def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample [N, C, h, w] at ``position + flow``: cubic (a = -0.75), edges replicated, as ``dream.warp.warp`` does."""
    return _sample(x, flow, "bicubic")


def warp_linear(x: Tensor, flow: Tensor) -> Tensor:
    """Sample at ``position + flow`` by linear interpolation, edges replicated, as cv2.remap with INTER_LINEAR does."""
    return _sample(x, flow, "bilinear")


def _sample(x: Tensor, flow: Tensor, mode: str) -> Tensor:
    positions, scale = _positions(flow.shape[2], flow.shape[3], flow.device)
    at = torch.addcmul(positions, flow.permute(0, 2, 3, 1), scale)
    return F.grid_sample(x, at, mode=mode, padding_mode="border", align_corners=True)


@cached_tensor
def _positions(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's position [1, h, w, 2], -1 to 1 from the first pixel to the last, and a pixel's length [2]."""
    pixel = 2 / np.maximum(np.array([width, height]) - 1, 1)
    x, y = np.meshgrid(np.arange(width) * pixel[0] - 1, np.arange(height) * pixel[1] - 1)
    return _to_tensor(np.dstack((x, y))[None], device), _to_tensor(pixel, device)


def in_bounds(flow: Tensor) -> Tensor:
    """Return 1.0 where the sampled position is inside the picture, or ``FLOW_NOISE`` outside: [N, 1, h, w]."""
    from_centre, half = _from_centre(flow.shape[2], flow.shape[3], flow.device)
    outside = (flow + from_centre).abs() - half
    return (outside.amax(1, keepdim=True) <= FLOW_NOISE).to(flow.dtype)


@cached_tensor
def _from_centre(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's position from the centre [1, 2, h, w], and that of the last one [1, 2, 1, 1]."""
    half = (np.array([width, height]) - 1) / 2
    x, y = np.meshgrid(np.arange(width) - half[0], np.arange(height) - half[1])
    return _to_tensor(np.stack((x, y))[None], device), _to_tensor(half.reshape(1, 2, 1, 1), device)


def squared_length(vectors: Tensor) -> Tensor:
    """Return |v|^2 of [N, 2, h, w]: [N, 1, h, w]."""
    return (vectors * vectors).sum(1, keepdim=True)


# --- colours ----------------------------------------------------------------------------------------------------------

def luma(x: Tensor) -> Tensor:
    """Return the luma (ITU-R BT.601) of RGB [N, 3, h, w]: [N, 1, h, w]."""
    return (x * _weights(tuple(LUMA_MATRIX[0].tolist()), x.device)).sum(1, keepdim=True)


def grey(levels: Tensor) -> Tensor:
    """Return the grey of RGB in whole levels 0..255, whole levels too, as ``optical_flow.grey`` does."""
    total = (levels * _weights(GREY_WEIGHTS, levels.device)).sum(1, keepdim=True)  # below 2^23: exact
    return torch.floor((total + (1 << GREY_SHIFT - 1)) * (1 / (1 << GREY_SHIFT)))


@cached_tensor
def _weights(weights: tuple[float, ...], device: torch.device) -> Tensor:
    return _to_tensor(np.array(weights).reshape(1, -1, 1, 1), device)


def _to_tensor(array: Matrix, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)
