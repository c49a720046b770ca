"""``frame_matching.py`` on tensors: flow, trust and scene cut of N independent streams, with numbers for branches.

Rules and shapes as in device_sampling.py; grey is [N, 1, h, w] in whole levels 0..255, a number of each stream is
[N, 1, 1, 1], and yes or no is 1.0 or 0.0.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamdream.dream import device_flow, device_trust
from streamdream.dream.device_histogram import cumulate, first_reaching, histogram
from streamdream.dream.device_sampling import warp
from streamdream.dream.frame_matching import (
    CLIPPED_ABOVE,
    CLIPPED_BELOW,
    FLASH_SHARE,
    FLAT_VARIANCE,
    SAME_EXPOSURE,
    motion_cells,
)
from streamdream.errors import UnknownName
from streamdream.media.device_resize import resize_area, resize_linear
from streamdream.system.tensor_cache import cached_tensor

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(current, previous), grey -> flow [N, 2, h, w], current -> previous."""
MIDDLE_GREY = 128


class TensorMatch(NamedTuple):
    """``frame_matching.FrameMatch`` of N streams."""

    grey: Tensor
    """[N, 1, h, w]: this frame."""
    reference: Tensor
    """[N, 1, h, w]: what the next frame is matched to: the previous one where this one is blank."""
    motion: Tensor
    """[N, 2, h, w]; 0 in a blank frame."""
    trust: Tensor
    """[N, 1, h, w] in 0..1; 0 where nothing is carried: at the start and after a cut."""
    cut: Tensor
    """[N, 1, 1, 1], as the next two."""
    blank: Tensor
    clipped: Tensor


def match(grey: Tensor, previous: Tensor, started: Tensor, cut_threshold: Tensor, trust_name: str, flow_name: str
          ) -> TensorMatch:
    """Match frames to the previous ones. ``started`` [N, 1, 1, 1] is 0 where there is no previous frame;
    ``cut_threshold`` is [N, 1, 1, 1], 0 for no cuts. Raises UnknownName.
    """
    if flow_name not in FLOWS:
        raise UnknownName("flow", flow_name, FLOWS)
    return match_with(FLOWS[flow_name], grey, previous, started, cut_threshold, trust_name)


def match_with(estimate: FlowEstimator, grey: Tensor, previous: Tensor, started: Tensor, cut_threshold: Tensor,
               trust_name: str) -> TensorMatch:
    """As ``match``, with the function that estimates the flow."""
    trust_of = device_trust.get(trust_name)
    tones = _tones(grey, previous)
    blank = tones.blank & ~tones.was_blank
    current, before = _equalized(grey, previous, tones)
    motion, backward = _estimate(estimate, current, before, trust_name in device_trust.WITH_BACKWARD)
    seen = (started > 0) & ~blank
    cut = seen & (frame_similarity(current, before, motion) < cut_threshold) & (cut_threshold > 0)
    carried = seen & ~cut
    shown = (started > 0) & blank
    flash = tones.clipped > tones.clipped_before + FLASH_SHARE
    trust = trust_of(current, before, motion, backward)
    yes, no = torch.ones_like(started), torch.zeros_like(started)
    return TensorMatch(
        grey, torch.where(shown, previous, grey), torch.where(seen, motion, no),
        torch.where(carried, trust, torch.where(shown, yes, no)),
        torch.where(cut, yes, no), torch.where(shown, yes, no), torch.where(shown | carried & flash, yes, no))


def _estimate(estimate: FlowEstimator, current: Tensor, previous: Tensor, both_ways: bool
              ) -> tuple[Tensor, Tensor | None]:
    """Return the flow, and the backward flow, which is estimated in the same call, where it is needed."""
    if not both_ways:
        return estimate(current, previous), None
    forward, backward = estimate(torch.cat((current, previous)), torch.cat((previous, current))).chunk(2)
    return forward, backward


# --- tones ------------------------------------------------------------------------------------------------------------

class _Tones(NamedTuple):
    """What the histograms of two frames say; yes and no are bool [N, 1, 1, 1]."""

    cumulative: tuple[Tensor, Tensor]
    """[N, 256]: how many pixels are at most as bright."""
    blank: Tensor
    was_blank: Tensor
    differs: Tensor
    """Whether their exposure does."""
    more: Tensor
    """Whether the frame has more contrast than the one before."""
    clipped: Tensor
    """Share of pixels, [N, 1, 1, 1]."""
    clipped_before: Tensor


def _tones(grey: Tensor, previous: Tensor) -> _Tones:
    both = torch.cat((grey, previous))
    blank, was_blank = (_variance(downscale_4x(both)) < FLAT_VARIANCE).chunk(2)
    counts = histogram(both[:, 0], 8)
    moments = (counts[:, None] * _moments(grey.shape[2] * grey.shape[3], grey.device)).sum(2)  # [2N, 3]
    mean, squares, clipped = moments.reshape(-1, 3, 1, 1).chunk(3, 1)
    deviation = torch.sqrt((squares - mean * mean).clamp(min=0))
    (mean, mean_before), (deviation, deviation_before) = mean.chunk(2), deviation.chunk(2)
    differs = torch.maximum((mean - mean_before).abs(), (deviation - deviation_before).abs()) >= SAME_EXPOSURE
    cumulative, cumulative_before = cumulate(counts).chunk(2)
    clipped, clipped_before = clipped.chunk(2)
    return _Tones((cumulative, cumulative_before), blank, was_blank, differs & ~was_blank,
                  deviation > deviation_before, clipped, clipped_before)


@cached_tensor
def _moments(pixels: int, device: torch.device) -> Tensor:
    """Return [3, 256]: what each level adds to the mean, to the mean square (both from ``MIDDLE_GREY``), which keeps
    float32 exact enough, and to the share of what is clipped."""
    levels = np.arange(256)
    centred = levels - MIDDLE_GREY
    clipped = (levels < CLIPPED_BELOW) | (levels > CLIPPED_ABOVE)
    rows = np.stack((centred, centred**2, clipped)).astype(np.float64) / pixels
    return torch.from_numpy(rows.astype(np.float32)).to(device)


def _equalized(grey: Tensor, previous: Tensor, tones: _Tones) -> tuple[Tensor, Tensor]:
    """Give two frames of different exposure the same tones, as ``frame_matching.equalize_exposure`` does."""
    (cumulative, cumulative_before), more = tones.cumulative, tones.more
    flat = more[:, 0, 0]  # [N, 1]
    source = torch.where(flat, cumulative, cumulative_before)
    other = torch.where(flat, cumulative_before, cumulative)
    curve = first_reaching(other, source)
    mapped = curve.gather(1, torch.where(more, grey, previous).flatten(1).long()).reshape(grey.shape)
    return (torch.where(tones.differs & more, mapped, grey), torch.where(tones.differs & ~more, mapped, previous))


# --- cuts -------------------------------------------------------------------------------------------------------------

def frame_similarity(current: Tensor, previous: Tensor, flow: Tensor) -> Tensor:
    """Return the correlation of the current frames and the warped previous ones, as
    ``frame_matching.frame_similarity``: [N, 1, 1, 1].
    """
    small = downscale_4x(torch.cat((current, previous), 1))
    height, width = small.shape[2:]
    common = resize_area(flow, *motion_cells(*flow.shape[2:]))
    common = common * _scale(width / flow.shape[3], height / flow.shape[2], flow.device)
    pair = torch.cat((small[:, :1], warp(small[:, 1:], resize_linear(common, height, width))), 1)
    centred = pair - pair.mean((2, 3), keepdim=True)
    variances = (centred * centred).mean((2, 3), keepdim=True)
    covariance = (centred[:, :1] * centred[:, 1:]).mean((2, 3), keepdim=True)
    bounded = variances.clamp(min=FLAT_VARIANCE)
    similarity = covariance / torch.sqrt(bounded[:, :1] * bounded[:, 1:])
    flat = variances.amax(1, keepdim=True) < FLAT_VARIANCE
    return torch.where(flat, torch.ones_like(similarity), similarity)


def downscale_4x(planes: Tensor) -> Tensor:
    """Scale [N, C, h, w] to a quarter, by area averages."""
    return resize_area(planes, max(1, planes.shape[2] // 4), max(1, planes.shape[3] // 4))


def _variance(plane: Tensor) -> Tensor:
    centred = plane - plane.mean((2, 3), keepdim=True)
    return (centred * centred).mean((2, 3), keepdim=True)


@cached_tensor
def _scale(x: float, y: float, device: torch.device) -> Tensor:
    return torch.tensor([x, y], dtype=torch.float32).reshape(1, 2, 1, 1).to(device)


# --- flows ------------------------------------------------------------------------------------------------------------

def _none(current: Tensor, previous: Tensor) -> Tensor:
    return torch.zeros_like(current).expand(-1, 2, -1, -1)


FLOWS: dict[str, FlowEstimator] = {"lucas-kanade": device_flow.lucas_kanade, "none": _none}
