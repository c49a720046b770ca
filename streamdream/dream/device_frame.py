"""The frame function: the whole way of a frame as one pure function of tensors, all of it on one device.

    frame, state, numbers ──▶ match ──▶ begin ──▶ ascend_pass ──▶ finish ──▶ compose ──▶ state, dream

The same as ``Dreamer.advance``, which is the reference, with numbers where that has branches: nothing in here waits for
the host, and shapes are static, so it runs as a CUDA graph, and exports to ONNX and TensorRT. Of N independent streams;
pictures are float32 [N, 3, h, w] in [-1, 1], planes [N, 1, h, w], numbers [N, 1, 1, 1], yes and no are 1 and 0.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.dream import consistency, device_legibility, device_step_gain, device_trust, step_gain
from streamdream.dream.device_matching import TensorMatch, match
from streamdream.dream.device_sampling import downscale_area, grey, squared_length, warp
from streamdream.dream.trust import DECAYING
from streamdream.media.device_resize import resize_antialiased, resize_area, resize_linear
from streamdream.settings import DreamSettings
from streamdream.system.tensor_cache import cached_tensor

if TYPE_CHECKING:
    DeviceStep = Callable[[Tensor, Tensor, "AllTargets"], Tensor]
    """(picture [N, 3, h, w], step_size [N, 1, 1, 1], targets) -> picture, of plain operations on tensors."""
    from streamdream.backends import AllTargets


class FrameState(NamedTuple):
    """What one frame passes on to the next: ``DreamState`` on the device."""

    residual: Tensor
    """[N, 3, h, w]."""
    grey: Tensor
    """[N, 1, h, w] in 0..255: the frame that the next one is matched to."""
    doubt: Tensor
    """[N, 1, h / 8, w / 8]: see ``trust.decay_doubt``; 1 at the start."""
    maturity: Tensor
    """[N, 1, h, w]: see step_gain.py; 0 at the start."""
    started: Tensor
    """[N, 1, 1, 1]: 0 before the first frame, where the rest is ignored."""


class FrameNumbers(NamedTuple):
    """The settings that are numbers, each [N, 1, 1, 1]; a change of one needs no other function."""

    step_size: Tensor
    first_step_size: Tensor
    """Where nothing is carried: at the start, after a cut."""
    first_growth: Tensor
    """Steps of the usual length that such a frame takes."""
    regrowth: Tensor
    """The largest gain of the steps where the dream is young."""
    first_gain: Tensor
    """Of the steps where nothing is carried, in place of warm-up steps; 1 where those are taken."""
    keep: Tensor
    cut: Tensor
    legibility: Tensor
    stillness: Tensor
    strength: Tensor


@dataclass(frozen=True)
class FrameSpec:
    """All that a frame function is fixed to."""

    field: tuple[int, int]
    """(height, width), as ``octaves`` are: coarsest first."""
    octaves: tuple[tuple[int, int], ...]
    steps: int
    flow: str
    trust: str
    legibility: bool
    stillness: bool
    portable: bool = False
    """Whether it keeps to operations that other engines have; it then differs by rounding."""
    bounded: bool = False
    """Whether the dream is clamped after the last octave, as it is where one octave is dreamed per frame."""


class Begun(NamedTuple):
    """What lies between a frame's match and its steps."""

    seed: Tensor
    carried: Tensor
    """The residual of the previous frame, warped to this one; 0 where nothing is carried."""
    base: Tensor
    """What the residual is measured from."""
    gain: Tensor
    maturity: Tensor
    doubt: Tensor
    carries: Tensor
    """1 where something is carried: neither at the start nor at a cut."""
    step_size: Tensor


def numbers_of(settings: DreamSettings, warmup: bool) -> list[float]:
    """Return the values of ``FrameNumbers``. ``warmup``: a frame that carries nothing takes the warm-up steps;
    otherwise it takes one pass of steps as long as where the dream is young.
    """
    settings, length = consistency.with_memory(settings), consistency.first_gain(settings)
    first = consistency.with_step(settings, length)
    passes = 1 + settings.warmup_steps if warmup else 1
    first_gain = 1.0 if warmup else max(1.0, min(settings.regrowth, step_gain.LONGEST_STEP / first.step_size))
    return [settings.step_size, first.step_size, passes * length, settings.regrowth, first_gain, settings.keep,
            settings.cut, settings.legibility, settings.stillness, settings.strength]


def unpack(values: Tensor) -> FrameNumbers:
    """[N, K] -> the numbers, in the order of ``numbers_of``."""
    return FrameNumbers(*(value.reshape(-1, 1, 1, 1) for value in values.unbind(1)))


def to_field(image: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, 3] -> the frame at the size of the field, [N, 3, h, w], and its grey [N, 1, h, w] in 0..255."""
    levels = image.float().permute(0, 3, 1, 2)  # in this order, as TensorRT converts bytes, and nothing else with them
    if levels.shape[2:] != (height, width):
        levels = downscale_area(levels, height, width)
    return levels * (1 / 127.5) - 1, grey(levels)


def match_frame(spec: FrameSpec, image: Tensor, previous: Tensor, started: Tensor, cut: Tensor
                ) -> tuple[Tensor, TensorMatch]:
    """Return the field of ``image``, and its match to the grey frame ``previous``."""
    field, current = to_field(image, *spec.field)
    return field, match(current, previous, started, cut, spec.trust, spec.flow)


def begin(spec: FrameSpec, field: Tensor, found: TensorMatch, state: FrameState, numbers: FrameNumbers,
          support: Tensor | None = None) -> Begun:
    """Warp what is carried to the frame, and make the picture that the steps begin from.

    ``support`` [1, 1, h, w] is 1 where the mask lets anything be dreamed.
    """
    carries = state.started * (1 - found.cut)
    trust, doubt = found.trust, torch.ones_like(state.doubt)
    if spec.trust in DECAYING:
        trust, lasting = device_trust.decay_doubt(trust, found.motion, state.doubt)
        doubt = torch.where(carries > 0, lasting, doubt)
    if spec.stillness:
        trust = trust * torch.exp(-squared_length(found.motion) / numbers.stillness.square())
    carried = warp(state.residual, found.motion) * (trust * numbers.keep * carries)
    maturity = device_step_gain.carry(state.maturity, found.motion, trust, numbers.keep) * carries
    if support is not None:
        carried = carried * support
    gain = device_step_gain.of(maturity, carries, numbers.regrowth, numbers.step_size, numbers.keep)
    seed = (field + carried).clamp(-1, 1)
    return Begun(seed, carried, torch.where(found.clipped * carries > 0, seed - carried, field),
                 torch.where(carries > 0, gain, numbers.first_gain), maturity, doubt, carries,
                 torch.where(carries > 0, numbers.step_size, numbers.first_step_size))


def ascend_pass(spec: FrameSpec, steps: Sequence[DeviceStep], picture: Tensor, gain: Tensor | None, step_size: Tensor,
                shifts: Tensor, supports: Sequence[Tensor] = (), targets: Sequence[AllTargets] = ()) -> Tensor:
    """Take the steps of one pass over the octaves, as ``Dreamer._ascend`` does.

    ``steps``, ``supports`` and ``targets`` are one for each octave; ``shifts`` is int64 [steps, 2], down and right.
    Without ``gain`` it is 1, exactly.
    """
    base, detail, number = picture, None, 0
    for level, (height, width) in enumerate(spec.octaves):
        octave = _resize(spec, base, height, width)
        picture = octave if detail is None else octave + _resize(spec, detail, height, width)
        octave_gain = None if gain is None else _resize(spec, gain, height, width)
        for _ in range(spec.steps):
            moved = steps[level](roll(picture, shifts[number]), step_size, targets[level] if targets else ())
            moved = roll(moved, -shifts[number])
            picture = moved if octave_gain is None else _lengthen(spec, picture, moved, octave_gain)
            if supports:
                picture = octave + (picture - octave) * supports[level]
            number += 1
        detail = picture - octave
    if picture.shape != base.shape and detail is not None:
        picture = base + _resize(spec, detail, *base.shape[2:])
    return picture.clamp(-1, 1) if spec.bounded else picture


def finish(spec: FrameSpec, field: Tensor, begun: Begun, dreamed: Tensor, numbers: FrameNumbers
           ) -> tuple[Tensor, Tensor, Tensor]:
    """Return residual, doubt and maturity of the next state."""
    residual = dreamed - begun.base
    if spec.legibility:
        residual = device_legibility.shape_steps(residual, begun.carried, begun.carries, field, numbers.legibility)
    growth = torch.where(begun.carries > 0, torch.ones_like(numbers.first_growth), numbers.first_growth)
    return residual, begun.doubt, device_step_gain.mature(begun.maturity, begun.gain, numbers.keep, growth)


def roll(picture: Tensor, shift: Tensor) -> Tensor:
    """Shift [N, C, h, w] down and right by ``shift``, int64 [2], as ``step.shift_circular``: by look-ups, as a shift
    that is a tensor needs.
    """
    height, width = picture.shape[2:]
    rows = torch.remainder(_count(height, picture.device) - shift[0], height)
    columns = torch.remainder(_count(width, picture.device) - shift[1], width)
    channels_last: Tensor = picture.permute(0, 2, 3, 1)  # in memory, as the steps take it
    return channels_last[:, rows[:, None], columns].permute(0, 3, 1, 2)


@cached_tensor
def _count(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device)


def _resize(spec: FrameSpec, picture: Tensor, height: int, width: int) -> Tensor:
    """As ``dreamer._resize``: bilinear, with antialiasing where it is made smaller."""
    if picture.shape[2:] == (height, width):
        return picture
    smaller = height < picture.shape[2]
    if smaller and spec.portable:
        return resize_antialiased(picture, height, width)
    return F.interpolate(picture, (height, width), mode="bilinear", antialias=smaller)


def _lengthen(spec: FrameSpec, before: Tensor, after: Tensor, gain: Tensor) -> Tensor:
    """As ``step_gain.lengthen``. PyTorch makes a copy that engines lack of a ``lerp`` of different memory layouts."""
    longer = before + (after - before) * gain if spec.portable else torch.lerp(before, after, gain)
    return longer.clamp(-1, 1)


def resize_state(state: FrameState, height: int, width: int) -> FrameState:
    """Scale a state to a field of another size."""
    if state.residual.shape[2:] == (height, width):
        return state
    residual, maturity = (resize_linear(plane, height, width) for plane in (state.residual, state.maturity))
    seen = resize_area(state.grey, height, width).round().clamp(0, 255)
    doubt = resize_linear(state.doubt, *device_trust.lasting_shape(height, width))
    return FrameState(residual, seen, doubt, maturity, state.started)
