"""The frame function as a backend runs it: compiled for a size and an objective, once for all dreams on a backend."""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import StepSpec, unflatten_targets
from streamdream.dream import device_frame
from streamdream.dream.device_frame import FrameSpec, FrameState
from streamdream.dream.device_matching import TensorMatch
from streamdream.media import device_compose
from streamdream.media.device_picture import PlaneLayout, compose_samples

if TYPE_CHECKING:
    from streamdream.ascent.gradient_shape import GradientShape
    from streamdream.ascent.objectives import Objective
    from streamdream.backends import AllTargets

CACHED_PROGRAMS = 16
CACHED_PICTURES = 16
"""Sizes of pictures, and ways to show the dream, of one program: it is shared by many sessions."""
_making = threading.Lock()


class Programs:
    """What a backend has compiled for whole frames, kept with it: all dreamers on it share that."""

    def __init__(self, backend: Any) -> None:
        engines = getattr(backend, "portable_functions", False)  # which hold weights of their own
        self.program: Callable[[FrameSpec, Objective, GradientShape], Program] = (
            lru_cache(maxsize=CACHED_PROGRAMS if engines else 4 * CACHED_PROGRAMS)(partial(Program, backend)))
        self.composer: Callable[[PlaneLayout], Callable[..., Tensor]] = lru_cache(maxsize=CACHED_PROGRAMS)(
            lambda layout: backend.compile_function(partial(compose_samples, layout)))


def programs_of(backend: Any) -> Programs:
    """Return what is kept with the backend. Thread-safe."""
    with _making:
        if not hasattr(backend, "frame_programs"):
            backend.frame_programs = Programs(backend)
        programs: Programs = backend.frame_programs
        return programs


class Program:
    """The frame function for one size and objective, as the backend runs it."""

    def __init__(self, backend: Any, spec: FrameSpec, structure: Objective, shape: GradientShape) -> None:
        self.spec, self._backend, self._structure = spec, backend, structure
        specs = [StepSpec(structure, height, width, shape) for height, width in spec.octaves]
        self.steps = [backend.step_function(step) for step in specs]
        self.single_steps = [_with_number(backend.compile(step)) for step in specs]
        """Each on its own: for the warm-up, which takes a pass as often as the settings say."""
        self.match = backend.compile_function(partial(_match, spec))
        self.advance = lru_cache(maxsize=4)(lambda layout: self._compiled(partial(_advance, self, layout)))
        self.whole = lru_cache(maxsize=4)(lambda layout: self._compiled(partial(_whole, self, layout)))
        self.whole_packed = lru_cache(maxsize=CACHED_PICTURES)(
            lambda layout, parts: self._compiled(partial(_whole_packed, self, layout, parts)))

    def _compiled(self, work: Callable[..., Any]) -> Callable[..., Any]:
        run: Callable[..., Any] = self._backend.compile_function(work, [self._structure])
        return run


def _with_number(step: Any) -> Callable[..., Tensor]:
    def run(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
        dreamed: Tensor = step(picture, step_size, targets)
        return dreamed

    return run


@dataclass(frozen=True)
class Layout:
    """How the inputs of a compiled function follow one another behind the constant ones."""

    supports: int
    """0, or one for the field and one for each octave."""
    counts: tuple[int, ...] = ()
    """Targets of each term; the same for each octave."""
    mask: bool = False
    original_colors: bool = False
    levels: bool = False
    """See ``DreamOptions.levels``."""

    def split(self, rest: Sequence[Tensor], octaves: int) -> tuple[list[Tensor], list[AllTargets]]:
        """Return the supports and the targets of each octave."""
        supports, flat, size = list(rest[:self.supports]), rest[self.supports:], sum(self.counts)
        return supports, [unflatten_targets(flat[at * size:(at + 1) * size], self.counts) for at in range(octaves)]


def _match(spec: FrameSpec, image: Tensor, previous: Tensor, started: Tensor, cut: Tensor) -> tuple[Tensor, ...]:
    field, found = device_frame.match_frame(spec, image, previous, started, cut)
    return field, *found


def _advance(program: Program, layout: Layout, field: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """(field, match, state but its grey, numbers, shifts, supports, targets) -> residual, doubt, maturity."""
    count = len(TensorMatch._fields)
    found, (residual, doubt, maturity, started, values, shifts), rest = (
        TensorMatch(*inputs[:count]), inputs[count:count + 6], inputs[count + 6:])
    spec, numbers = program.spec, device_frame.unpack(values)
    supports, targets = layout.split(rest, len(spec.octaves))
    state = FrameState(residual, found.reference, doubt, maturity, started)
    begun = device_frame.begin(spec, field, found, state, numbers, supports[0] if supports else None)
    dreamed = device_frame.ascend_pass(spec, program.steps, begun.seed, begun.gain, begun.step_size, shifts,
                                       supports[1:], targets)
    return device_frame.finish(spec, field, begun, dreamed, numbers)


def _whole(program: Program, layout: Layout, image: Tensor, grey: Tensor, residual: Tensor, doubt: Tensor,
           maturity: Tensor, started: Tensor, values: Tensor, shifts: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """(image, state, numbers, shifts, mask, supports, targets) -> state but for ``started``, dream."""
    numbers, mask = device_frame.unpack(values), rest[0] if layout.mask else None
    field, found = device_frame.match_frame(program.spec, image, grey, started, numbers.cut)
    residual, doubt, maturity = _advance(program, layout, field, *found, residual, doubt, maturity, started, values,
                                         shifts, *rest[layout.mask:])
    dream = shown(layout, image, residual, numbers.strength, mask)
    return residual, found.reference, doubt, maturity, dream


Parts = tuple[tuple[int, torch.dtype, tuple[int, ...]], ...]
"""Where each tensor begins in a packed one, in bytes, its type and its shape."""


def _whole_packed(program: Program, layout: Layout, parts: Parts, packed: Tensor, grey: Tensor, residual: Tensor,
                  doubt: Tensor, maturity: Tensor, started: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """As ``_whole``, of image, numbers and shifts in one tensor of bytes."""
    image, values, shifts = (packed[start:start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
                             for start, dtype, shape in parts)
    return _whole(program, layout, image, grey, residual, doubt, maturity, started, values, shifts, *rest)


def shown(layout: Layout, image: Tensor, residual: Tensor, strength: Tensor, mask: Tensor | None) -> Tensor:
    """Return the dream, uint8 [N, H, W, 3], or its levels. ``mask`` has the size of what is returned."""
    if layout.levels:
        return device_compose.residual_levels(residual, strength, mask, layout.original_colors)
    return device_compose.compose_rgb(image, residual, strength, mask, layout.original_colors)
