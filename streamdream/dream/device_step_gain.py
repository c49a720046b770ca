"""``step_gain.py`` on tensors: longer steps where the carried dream is young.

Maturity and gain are [N, 1, h, w]; settings are numbers of each stream, [N, 1, 1, 1]. A gain of 1 leaves a step as it
is, so that nothing has to be known about where it is 1.
"""
from __future__ import annotations

import torch
from torch import Tensor

from streamdream.dream.device_sampling import warp_linear
from streamdream.dream.step_gain import LONGEST_STEP, MATURE


def carry(maturity: Tensor, motion: Tensor, trust: Tensor, keep: Tensor) -> Tensor:
    """Warp the maturity of the previous frame as its residual is. ``maturity`` is 1 everywhere for a state that has a
    residual only.
    """
    return warp_linear(maturity, motion) * (trust * keep)


def of(carried: Tensor, carries: Tensor, regrowth: Tensor, step_size: Tensor, keep: Tensor) -> Tensor:
    """Return the factor, 1 to ``regrowth``, of a frame's steps. ``carries`` is 0 for a stream in which nothing was
    carried to this frame: it takes warm-up steps instead.
    """
    maximum = torch.minimum(regrowth, LONGEST_STEP / step_size).clamp(min=1)
    gain = torch.minimum(((MATURE - carried) / (1 - keep)).clamp(min=1), maximum)
    return torch.where(carries > 0, gain, torch.ones_like(gain))


def mature(carried: Tensor, gain: Tensor, keep: Tensor, passes: Tensor) -> Tensor:
    """Return the maturity after ``passes`` passes with ``gain``; ``carried`` is 0 where nothing was carried."""
    return (carried + (1 - keep) * passes * gain).clamp(max=1)
