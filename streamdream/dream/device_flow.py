"""Optical flow as tensor operations, which stay on a device and go into a CUDA graph, ONNX and TensorRT.

Dense pyramidal Lucas-Kanade: Lucas, Kanade 1981; the pyramid of Bouguet 2001; robust weights as in Black, Anandan 1996.
A window solves for its flow itself instead of for a change of the flow at its centre, as Farneback 2003 does: so a
window takes the flow of all its pixels into account, and the flow is smooth where nothing else is known.

Nothing waits for the host, and shapes are static. Call once before tracing: constants are made at the first call.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models.tensor_cache import cached_tensor

COARSEST = 24
"""Lines, or columns: a picture with fewer is not halved again."""
ITERATIONS = 3
"""On each level."""
WINDOW_SIGMA, WINDOW_RADIUS = 2.0, 5
"""Pixels: the Gaussian weights of a window."""
ROBUST_SCALE = 10.0
"""Difference in grey levels at which a pixel weighs half (Lorentzian)."""
FLATNESS = 4.0
"""Squared gradient in grey levels per pixel below which a window keeps the flow that it had."""


def lucas_kanade(current: Tensor, previous: Tensor) -> Tensor:
    """Grey ``current`` and ``previous`` [N, 1, H, W] in 0..255, float32, from about 12 lines on -> the flow
    [N, 2, H, W]: (dx, dy) in pixels, current -> previous. The N pairs are independent.
    """
    levels = [torch.cat((current, previous), 1)]
    while min(levels[-1].shape[-2:]) >= COARSEST:
        levels.append(_halve(levels[-1]))
    flow = current.new_zeros(current.shape[0], 2, *levels[-1].shape[-2:])
    for level in reversed(levels):
        height, width = level.shape[-2:]
        if flow.shape[-2:] != level.shape[-2:]:
            doubled = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
            flow = 2 * doubled[..., :height, :width]
        flow = _refine(flow, level)
    return flow


def _halve(pair: Tensor) -> Tensor:
    """[N, 2, H, W] -> [N, 2, H / 2, W / 2], rounded up. A pixel lies in the middle of four."""
    height, width = pair.shape[-2:]
    padded = F.pad(pair, (1, 1 + width % 2, 1, 1 + height % 2), mode="replicate")
    return F.conv2d(padded, _binomial(pair.device), stride=2, groups=2)


def _refine(flow: Tensor, pair: Tensor) -> Tensor:
    """Improve the flow [N, 2, H, W] between the two pictures of a level [N, 2, H, W].

    All is divided by the root of FLATNESS, so that the flow that a window had weighs 1.
    """
    count, _, height, width = flow.shape
    rows_of_two = count, 2, 3, height, width
    taps = F.conv2d(F.pad(pair, (1, 1, 1, 1), mode="replicate"), _differences(flow.device), groups=2)
    now, before = taps.chunk(2, 1)
    columns, rows, scale = _positions(height, width, flow.device)
    one, zero = _one_and_zero(flow.device)
    row_x, row_y = (torch.cat(pair_of, 1).expand(count, 2, height, width)
                    for pair_of in ((-one, zero), (zero, -one)))
    for _ in range(ITERATIONS):
        positions = torch.addcmul(columns, flow.permute(0, 2, 3, 1), scale) + rows
        change = now + F.grid_sample(before, positions, padding_mode="border", align_corners=True)
        difference, gradient = change[:, :1], change[:, 1:]
        weighted = gradient / torch.addcmul(one, difference, difference, value=FLATNESS / ROBUST_SCALE**2)
        # at a flow f + g, a pixel differs by: difference + gradient * g
        constant = torch.addcmul(difference, gradient[:, :1], flow[:, :1], value=-1)
        constant = torch.addcmul(constant, gradient[:, 1:], flow[:, 1:], value=-1)
        had = torch.cat((row_x, flow[:, :1], row_y, flow[:, 1:]), 1).reshape(rows_of_two)
        equations = torch.addcmul(had, weighted.unsqueeze(2), torch.cat((gradient, constant), 1).unsqueeze(1), value=-1)
        flow = _solve(_window_sums(equations.flatten(1, 2)).reshape(rows_of_two))
    return flow


def _solve(equations: Tensor) -> Tensor:
    """[N, 2, 3, H, W]: the rows (a, b, u), (b, c, v) of a x + b y + u = 0 = b x + c y + v -> (x, y) [N, 2, H, W].

    The cross product of both is (x, y, 1) times the determinant.
    """
    rolled = equations.roll(-1, 2)
    cross = torch.addcmul(equations[:, 0] * rolled[:, 1], rolled[:, 0], equations[:, 1], value=-1)
    return cross[:, 1:] / cross[:, :1]


def _window_sums(planes: Tensor) -> Tensor:
    """Gaussian sums; nothing is outside the picture, so windows end at its edge."""
    count = planes.shape[1]
    across, down = _window(count, planes.device)
    planes = F.conv2d(planes, across, padding=(0, WINDOW_RADIUS), groups=count)
    return F.conv2d(planes, down, padding=(WINDOW_RADIUS, 0), groups=count)


@cached_tensor
def _window(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    offsets = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, dtype=torch.float32, device=device)
    weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA) ** 2)
    weights = weights / weights.sum()
    across, down = weights.view(1, 1, 1, -1), weights.view(1, 1, -1, 1)
    return across.repeat(count, 1, 1, 1), down.repeat(count, 1, 1, 1)


@cached_tensor
def _binomial(device: torch.device) -> Tensor:
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 8
    kernels: Tensor = torch.outer(weights, weights).repeat(2, 1, 1, 1)
    return kernels


@cached_tensor
def _differences(device: torch.device) -> Tensor:
    """[6, 1, 3, 3]: minus the current picture, plus the previous one, and half the gradients (Scharr) of each."""
    step, smooth = torch.tensor([-0.5, 0, 0.5]), torch.tensor([3.0, 10.0, 3.0]) / 16
    same = torch.zeros(3, 3)
    same[1, 1] = 1
    x, y = torch.outer(smooth, step) / 2, torch.outer(step, smooth) / 2
    kernels: Tensor = torch.stack((-same, x, y, same, x, y)) / FLATNESS**0.5
    return kernels.to(device).unsqueeze(1)


@cached_tensor
def _positions(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Columns [1, 1, W, 2] and rows [1, H, 1, 2], whose sum is the position of each pixel in -1..1, and what a pixel
    is of that [2].
    """
    columns, rows = torch.zeros(1, 1, width, 2), torch.zeros(1, height, 1, 2)
    columns[..., 0] = torch.linspace(-1, 1, width)
    rows[..., 1] = torch.linspace(-1, 1, height).unsqueeze(1)
    scale = torch.tensor([2 / (width - 1), 2 / (height - 1)])
    return columns.to(device), rows.to(device), scale.to(device)


@cached_tensor
def _one_and_zero(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.ones(1, 1, 1, 1, device=device), torch.zeros(1, 1, 1, 1, device=device)
