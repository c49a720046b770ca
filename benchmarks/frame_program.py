"""The frame function of a case, with inputs of its shapes, for measurements."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import flatten_targets
from streamdream.dream import device_frame
from streamdream.dream.device_frame import FrameSpec, FrameState
from streamdream.dream.device_program import Layout, Program, programs_of
from streamdream.dream.device_trust import lasting_shape
from streamdream.dream.octaves import octave_sizes
from streamdream.dream.options import DreamOptions

from . import Options, parse_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model
    from streamdream.settings import DreamSettings

FLOW = "lucas-kanade"


@dataclass(frozen=True)
class Case:
    """A frame of this size, dreamed on a field of so many lines."""

    width: int
    height: int
    lines: int

    @property
    def field(self) -> tuple[int, int]:
        return DreamOptions(self.lines).field_size(self.height, self.width)

    def columns(self) -> dict[str, str]:
        height, width = self.field
        return {"frame": f"{self.width}x{self.height}", "field": f"{width}x{height}"}


CASES = (Case(320, 240, 0), Case(640, 480, 0), Case(1920, 1080, 480), Case(1280, 720, 0))


def cases(options: Options) -> list[Case]:
    return [Case(*size) for size in parse_sizes(options.sizes)] if options.sizes else list(CASES)


@dataclass(frozen=True)
class FrameProgram:
    """``program`` as a backend runs it, and what it takes: tensors on the device, of the shapes of a run. No two are
    the same tensor, as a trace would take them for one input.
    """

    program: Program
    layout: Layout
    image: Tensor
    state: FrameState
    values: Tensor
    shifts: Tensor
    rest: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: Model, backend: Any, settings: DreamSettings, case: Case) -> FrameProgram:
        device, (height, width) = backend.device, case.field
        octaves = tuple(octave_sizes(height, width, settings.octaves, settings.octave_scale))
        spec = FrameSpec((height, width), octaves, settings.steps, FLOW, settings.trust, settings.legibility > 0,
                         settings.stillness > 0, getattr(backend, "portable_functions", False))
        objective = objectives.from_settings(settings, model)
        program = programs_of(backend).program(spec, objective.structure, GradientShape.of(settings))
        targets = backend.targets(objective, {})
        values = torch.tensor([device_frame.numbers_of(settings, False)], device=device)
        plane = torch.zeros(1, 1, height, width, device=device)
        doubt = torch.ones(1, 1, *lasting_shape(height, width), device=device)
        state = FrameState(plane.repeat(1, 3, 1, 1), plane, doubt, plane.clone(), torch.ones(1, 1, 1, 1, device=device))
        random = torch.Generator().manual_seed(0)
        image = torch.randint(256, (1, case.height, case.width, 3), dtype=torch.uint8, generator=random).to(device)
        shifts = torch.zeros(len(octaves) * settings.steps, 2, dtype=torch.int64, device=device)
        return cls(program, Layout(0, tuple(len(of_term) for of_term in targets)), image, state, values, shifts,
                   tuple(target.clone() for _ in octaves for target in flatten_targets(targets)))

    def whole(self) -> tuple[Tensor, ...]:
        """Match, dream and compose the frame: the next state, dream."""
        state = self.state
        result: tuple[Tensor, ...] = self.program.whole(self.layout)(
            self.image, state.grey, state.residual, state.doubt, state.maturity, state.started, self.values,
            self.shifts, *self.rest)
        return result

    def match(self) -> tuple[Tensor, ...]:
        """Return the field and its match."""
        found: tuple[Tensor, ...] = self.program.match(self.image, self.state.grey, self.state.started,
                                                       device_frame.unpack(self.values).cut)
        return found

    def advance(self, matched: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Warp and ascend: residual, doubt, maturity of the next state."""
        state = self.state
        result: tuple[Tensor, ...] = self.program.advance(self.layout)(
            *matched, state.residual, state.doubt, state.maturity, state.started, self.values, self.shifts, *self.rest)
        return result

    @property
    def bytes_up(self) -> int:
        """Bytes that go to the device for each frame."""
        return self.image.nbytes + self.values.nbytes + self.shifts.nbytes

    @property
    def bytes_down(self) -> int:
        """Bytes of the dream, which come back."""
        return self.image.nbytes
