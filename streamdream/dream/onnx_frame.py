"""The whole way of a frame as an ONNX file: frame and state in, dream and next state out."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, flatten_targets, graph, onnx_export, unflatten_targets
from streamdream.backends.engine import natural_noise
from streamdream.backends.precision import DTYPES
from streamdream.dream import device_frame, reference_images
from streamdream.dream.device_dreamer import to_planes
from streamdream.dream.device_frame import FrameNumbers, FrameSpec, FrameState
from streamdream.dream.device_trust import TRUSTS, lasting_shape
from streamdream.dream.dreamer import find_targets
from streamdream.dream.octaves import octave_sizes
from streamdream.dream.options import DEVICE_FLOWS, DreamOptions
from streamdream.dream.reference_images import NO_REFERENCES
from streamdream.errors import SettingsError
from streamdream.media.device_compose import compose_rgb

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model
    from streamdream.settings import DreamSettings

STATE = FrameState._fields
NEXT = tuple(f"next_{name}" for name in STATE)
NOTES = {
    "frame": "the picture, RGB", "shifts": "random shift before each step, down and right, at most `jitter` either way",
    "residual": "what the dream adds to the field, in half the value range; 0 at the start",
    "grey": "the frame before, 0..255; 0 at the start", "doubt": "where the flow was doubted; 1 at the start",
    "maturity": "how far the dream has grown, 0..1; 0 at the start", "started": "0 for the first frame, then 1",
    "step_size": "mean length of a step", "first_step_size": "the same where nothing is carried",
    "first_growth": "steps of the usual length that such a frame takes", "regrowth": "largest gain of young steps",
    "first_gain": "of the steps where nothing is carried", "keep": "fraction of the dream that is carried, 0..0.999",
    "cut": "correlation below which a scene cut is assumed; 0 for never", "legibility": "0..1", "strength": "0..4",
    "stillness": "motion at which only a third is kept, px", "dream": "the frame with its dream, RGB"}
USE = ("To dream a video of {size}: begin with the state at its start (all of `residual`, `grey`, `maturity` and "
       "`started` 0, `doubt` 1). For each frame: draw `shifts` at random, run this file, show `dream`, and give each "
       "output `next_...` to the input of that name. Other inputs have defaults.")


@dataclass(frozen=True)
class FrameGraph:
    """The traced frame function. Its inputs are the frame, the shifts, ``STATE``, numbers and targets, by ``names``."""

    traced: graph.Graph
    names: list[str]
    defaults: dict[str, Tensor]
    """Of inputs that need not be given."""
    start: dict[str, Tensor]
    """The inputs for a first frame, but for the defaults."""


def trace(model: Model, backend: Any, settings: DreamSettings, height: int, width: int, field_height: int,
          precision: str) -> FrameGraph:
    """Trace the frame function for frames of that size. Raises SettingsError for a trust without tensors."""
    if settings.trust not in TRUSTS:
        raise SettingsError(f"--trust {settings.trust} is for processors only; a frame's file has {', '.join(TRUSTS)}")
    field = DreamOptions(field_height).field_size(height, width)
    spec = FrameSpec(field, tuple(octave_sizes(*field, settings.octaves, settings.octave_scale)), settings.steps,
                     DEVICE_FLOWS[settings.flow], settings.trust, settings.legibility > 0, settings.stillness > 0, True)
    references = reference_images.read(settings)
    objective = objectives.from_settings(settings, model)
    targets = [tuple(find_targets(model, backend, term, references if term.needs else NO_REFERENCES, *size)
                     for term, _ in objective.terms) for size in spec.octaves]
    names = onnx_export.target_names(objective, targets[0])
    weights = {name: target for name, target in zip(names, flatten_targets(targets[0]), strict=True)
               if name.startswith("weights_")}
    values = device_frame.numbers_of(settings, warmup=False)
    numbers = {name: torch.full((1, 1, 1, 1), value) for name, value in zip(FrameNumbers._fields, values, strict=True)}
    start = {"frame": torch.zeros(1, height, width, 3, dtype=torch.uint8),
             "shifts": torch.zeros(len(spec.octaves) * settings.steps, 2, dtype=torch.int64), **_start_of(field)}
    work = _function(model, spec, settings, references, precision, targets, names)
    defaults = numbers | weights
    traced = graph.trace(work, (*start.values(), *defaults.values()), onnx_export.CHANGES)
    return FrameGraph(traced, [*start, *defaults], defaults, start)


def _start_of(field: tuple[int, int]) -> dict[str, Tensor]:
    height, width = field
    state = FrameState(torch.zeros(1, 3, height, width), torch.zeros(1, 1, height, width),
                       torch.ones(1, 1, *lasting_shape(height, width)), torch.zeros(1, 1, height, width),
                       torch.zeros(1, 1, 1, 1))
    return state._asdict()


def _function(model: Model, spec: FrameSpec, settings: DreamSettings, references: reference_images.References,
              precision: str, targets: list[Any], names: list[str]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the frame function. Mask, and targets of a guide or a style, are constants of it."""
    cpu, structure = torch.device("cpu"), objectives.from_settings(settings, model).structure
    shape, counts = GradientShape.of(settings), [len(of_term) for of_term in targets[0]]
    steps = [graph.step_function(model, StepSpec(structure, *size, shape), DTYPES[precision], cpu)
             for size in spec.octaves]
    masks = [reference_images.mask_support(references, *size) for size in (spec.field, *spec.octaves)]
    supports = [to_planes(mask, cpu) for mask in masks if mask is not None]
    fixed = [flatten_targets(of_octave) for of_octave in targets]

    def whole(frame: Tensor, shifts: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state, numbers = FrameState(*rest[:len(STATE)]), FrameNumbers(
            *rest[len(STATE):len(STATE) + len(FrameNumbers._fields)])
        given = iter(rest[len(STATE) + len(numbers):])
        changed = {name: next(given) for name in names if name.startswith("weights_")}
        of_octaves = [unflatten_targets([changed.get(name, target) for name, target in zip(names, flat, strict=True)],
                                        counts) for flat in fixed]
        field, found = device_frame.match_frame(spec, frame, state.grey, state.started, numbers.cut)
        begun = device_frame.begin(spec, field, found, state, numbers, supports[0] if supports else None)
        dreamed = device_frame.ascend_pass(spec, steps, begun.seed, begun.gain, begun.step_size, shifts, supports[1:],
                                           of_octaves)
        residual, doubt, maturity = device_frame.finish(spec, field, begun, dreamed, numbers)
        opacity = reference_images.mask_weights(references, *frame.shape[1:3])
        dream = compose_rgb(frame, residual, numbers.strength, None if opacity is None else to_planes(opacity, cpu),
                            settings.original_colors)
        return dream, residual, found.reference, doubt, maturity, torch.ones_like(state.started) + 0 * numbers.strength

    return whole


def example_frames(made: FrameGraph, count: int, jitter: int) -> list[dict[str, Tensor]]:
    """Return frame and shifts of a small clip: a picture that moves by two pixels a frame."""
    _, height, width, _ = made.start["frame"].shape
    still = natural_noise(torch.Size((1, 3, height, width)), torch.device("cpu")) * 0.9
    random = torch.Generator().manual_seed(0)
    return [{"frame": (127.5 * torch.roll(still, 2 * number, 3) + 127.5).round().byte().permute(0, 2, 3, 1),
             "shifts": torch.randint(-jitter, jitter + 1, made.start["shifts"].shape, generator=random)}
            for number in range(count)]
