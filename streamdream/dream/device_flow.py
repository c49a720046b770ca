"""Optical flow as tensor operations, which stay on a device and go into a CUDA graph, ONNX and TensorRT.

Dense pyramidal Lucas-Kanade (Lucas, Kanade 1981; coarse to fine: Bouguet 2001) with robust weights that become stricter
(Black, Anandan 1996). A window solves for its flow instead of for a change to the flow at its middle, as Farneback 2003
does: so it sees the flow that each of its pixels had, and flow spreads from where it is known to where nothing is.

Nothing waits for the host, and shapes are static. Constants are cached: call a function once before it is traced. The
determinants of its equations are above what float16 holds.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.dream.device_sampling import warp_linear
from streamdream.system.tensor_cache import cached_tensor

COARSEST = 24
"""Lines or columns below which a picture is not halved again."""
LARGE = 400
"""Lines and columns from which on a level is only touched up: it costs four times what the next one does."""
ROBUST_SCALES = {"first": (30.0, 10.0, 5.0), "next": (30.0, 5.0), "large": (5.0,)}
"""For each iteration on the coarsest level, the finer ones, and those that are LARGE: the difference in grey levels at
which a pixel weighs half (Lorentzian)."""
WINDOW_SIGMA, WINDOW_SIZE = 1.9, 10
"""Pixels: the Gaussian weights of a window, of which one stands at every second line and column, amid four pixels."""
INERTIA, INERTIA_OF_NOISE = 2.0, 0.2
"""How much the flow that a window had weighs: as much as this squared gradient, in grey levels per pixel, plus a share
of the variance of the noise, so that flow does not follow noise."""


def lucas_kanade(current: Tensor, previous: Tensor) -> Tensor:
    """Grey ``current`` and ``previous`` [N, 1, H, W] in 0..255, float32, from about 12 lines on -> the flow
    [N, 2, H, W]: (dx, dy) in pixels, current -> previous. The N pairs are independent.
    """
    levels = [torch.cat((current, previous), 1)]
    while min(levels[-1].shape[2:]) >= COARSEST:
        levels.append(_halve(levels[-1]))
    inertia = _inertia(levels[0])
    flow = current.new_zeros(current.shape[0], 2, *levels[-1].shape[2:])
    flow = _refine(flow, levels[-1], inertia, ROBUST_SCALES["first"])
    for level in levels[-2::-1]:
        height, width = level.shape[2:]
        scales = ROBUST_SCALES["large" if min(height, width) >= LARGE else "next"]
        flow = _refine(2 * _enlarge(flow, height, width), level, inertia, scales)
    return flow


def _halve(pair: Tensor) -> Tensor:
    """[N, 2, H, W] -> [N, 2, H / 2, W / 2], rounded up. A pixel lies in the middle of four; the first lines and columns
    of a picture with an odd number of them count twice.
    """
    height, width = pair.shape[2:]
    padded = F.pad(pair, (1 + width % 2, 1, 1 + height % 2, 1), mode="replicate")
    return F.conv2d(padded, _binomial(pair.device), stride=2, groups=2)


def _enlarge(flow: Tensor, height: int, width: int) -> Tensor:
    """[N, 2, H / 2, W / 2], as ``_halve`` rounds -> [N, 2, H, W], bilinear, with the same values."""
    return F.interpolate(flow, scale_factor=2.0, mode="bilinear")[:, :, height % 2:, width % 2:]


def _inertia(pair: Tensor) -> Tensor:
    """[N, 1, 1, 1]. The noise is estimated as in Immerkaer 1996, from what is left of both pictures by a difference of
    Laplacians."""
    deviation = F.conv2d(pair, _noise_kernel(pair.device), stride=2, groups=2).abs().mean((1, 2, 3), keepdim=True)
    return INERTIA + INERTIA_OF_NOISE * deviation * deviation


def _refine(flow: Tensor, pair: Tensor, inertia: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Improve the flow [N, 2, H, W] between the two pictures of a level [N, 2, H, W]."""
    count, _, height, width = flow.shape
    taps = F.conv2d(F.pad(pair, (1, 1, 1, 1), mode="replicate"), _differences(flow.device), groups=2)
    now, before = taps.chunk(2, 1)
    one, row_x, row_y = _identity(flow.device)
    row_x, row_y = (row.expand(count, 2, height, width) for row in (row_x, row_y))
    for scale in scales:
        # with a flow g in place of the flow f, the pictures differ by: difference + gradient * (g - f)
        change = now + warp_linear(before, flow)
        difference, gradient = change[:, :1], change[:, 1:]
        weighted = gradient / torch.addcmul(one, difference, difference, value=1 / scale**2)
        at_zero = torch.addcmul(difference, gradient[:, :1], flow[:, :1], value=-1)
        at_zero = torch.addcmul(at_zero, gradient[:, 1:], flow[:, 1:], value=-1)
        # least squares: sum of weighted * (gradient * g + at_zero) + inertia * (g - f) = 0, a row for x and one for y
        data = weighted.unsqueeze(2) * torch.cat((gradient, at_zero), 1).unsqueeze(1)
        rest = torch.cat((row_x, flow[:, :1], row_y, flow[:, 1:]), 1)
        sums = _window_sums(torch.addcmul(data.flatten(1, 2), rest, inertia, value=-1))
        flow = _enlarge(_solve(sums.reshape(count, 2, 3, *sums.shape[2:])), height, width)
    return flow


def _solve(equations: Tensor) -> Tensor:
    """[N, 2, 3, H, W]: the rows (a, b, u) and (b, c, v) of a x + b y + u = 0 and b x + c y + v = 0 -> (x, y)
    [N, 2, H, W]. The cross product of both rows is (x, y, 1) times the determinant.
    """
    next_ones = equations.roll(-1, 2)
    cross = torch.addcmul(equations[:, 0] * next_ones[:, 1], next_ones[:, 0], equations[:, 1], value=-1)
    return cross[:, 1:] / cross[:, :1]  # in the order z, x, y


def _window_sums(planes: Tensor) -> Tensor:
    """[N, C, H, W] -> the Gaussian sums in the middle of each four pixels [N, C, H / 2, W / 2], as ``_halve`` rounds.
    Windows end at the edge of the picture: nothing is outside.
    """
    count, height, width = planes.shape[1:]
    across, down = _window(count, planes.device)
    margin = WINDOW_SIZE // 2 - 1
    planes = F.conv2d(planes, across, padding=(0, margin + width % 2), stride=(1, 2), groups=count)
    return F.conv2d(planes, down, padding=(margin + height % 2, 0), stride=(2, 1), groups=count)


@cached_tensor
def _window(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    offsets = torch.arange(WINDOW_SIZE, dtype=torch.float32) - (WINDOW_SIZE - 1) / 2
    weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA) ** 2)
    weights = (weights / weights.sum()).to(device)
    return weights.view(1, 1, 1, -1).repeat(count, 1, 1, 1), weights.view(1, 1, -1, 1).repeat(count, 1, 1, 1)


@cached_tensor
def _binomial(device: torch.device) -> Tensor:
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(weights, weights).repeat(2, 1, 1, 1).to(device)


@cached_tensor
def _noise_kernel(device: torch.device) -> Tensor:
    """Of white noise, the mean size of the answer is the standard deviation."""
    laplacian = torch.tensor([1.0, -2.0, 1.0])
    kernel: Tensor = torch.outer(laplacian, laplacian) * (math.pi / 2) ** 0.5 / 6
    return kernel.repeat(2, 1, 1, 1).to(device)


@cached_tensor
def _differences(device: torch.device) -> Tensor:
    """[6, 1, 3, 3]: minus the current picture, plus the previous one, and half the gradients of each (Scharr)."""
    step, smooth = torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([3.0, 10.0, 3.0]) / 16
    same = torch.zeros(3, 3)
    same[1, 1] = 1
    x, y = torch.outer(smooth, step) / 2, torch.outer(step, smooth) / 2
    kernels: Tensor = torch.stack((-same, x, y, same, x, y))
    return kernels.unsqueeze(1).to(device)


@cached_tensor
def _identity(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """One [1, 1, 1, 1], and the rows of minus the identity matrix [1, 2, 1, 1]."""
    rows = -torch.eye(2, device=device)
    return torch.ones(1, 1, 1, 1, device=device), rows[0].view(1, 2, 1, 1), rows[1].view(1, 2, 1, 1)
