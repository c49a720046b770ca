"""Dream whole frames on the device of the steps: prepare the frame function for a size, feed it, fetch what it made.

Where it is known whether a frame is a cut (a file, of which the next frame is matched while this one is dreamed), it
takes the warm-up steps, as on the reference path. Where nothing may wait for that (live), match and steps are one
function, and a cut is a number in it.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import flatten_targets
from streamdream.dream import device_frame, reference_images
from streamdream.dream.device_frame import FrameSpec, FrameState
from streamdream.dream.device_matching import TensorMatch
from streamdream.dream.device_program import CACHED_PROGRAMS, Layout, Program, programs_of, shown
from streamdream.dream.device_trust import TRUSTS, lasting_shape
from streamdream.dream.frame_matching import match_key
from streamdream.dream.octaves import octave_sizes
from streamdream.dream.options import DEVICE_FLOWS
from streamdream.dream.state import DreamState
from streamdream.errors import SettingsError
from streamdream.media import device_picture
from streamdream.media.compose import compose_picture
from streamdream.media.device_compose import to_luma
from streamdream.media.frame import check_picture, picture_size, to_array
from streamdream.media.pinned_memory import (
    Download,
    packed_starts,
    torch_dtype,
    upload,
    upload_all,
    upload_constant,
    upload_packed,
)

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.backends import AllTargets, Backend
    from streamdream.dream.options import DreamOptions
    from streamdream.dream.reference_images import Mask, References
    from streamdream.media.frame import Frame, Picture
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

log = logging.getLogger(__name__)
FindTargets = Callable[..., Any]
"""(term, references, height, width) -> the targets of a term."""


@dataclass(frozen=True, eq=False)
class DeviceMatch:
    """The match of ``image`` to the frame before it, on the device; stands for a ``FrameMatch``."""

    image: NDArray[np.uint8]
    field: Tensor
    found: TensorMatch
    previous: Tensor | None
    key: tuple[object, ...]
    cut_flag: Download

    @property
    def reference(self) -> Tensor:
        """[1, 1, h, w]: what the next frame is matched to."""
        return self.found.reference

    @property
    def cut(self) -> bool:
        """Wait for the device; in a render it has found this while it dreamed the frame before."""
        return bool(self.cut_flag.result().item())


class PendingDream:
    """A dream that a device may still compute."""

    def __init__(self, result: Callable[[], Picture], residual: Callable[[], NDArray[np.float32]]) -> None:
        self._result, self._residual = result, residual

    def result(self) -> Picture:
        """Wait for the picture: uint8 [H, W, 3] RGB, or a planar PyAV frame where the frame has one."""
        return self._result()

    def residual(self) -> NDArray[np.float32]:
        """Wait for what the dream adds to the frame: [h, w, 3], at the size of the field."""
        return self._residual()


def create(model: Model, backend: Backend, seed: int, find_targets: FindTargets, frame_path: str
           ) -> DeviceDreamer | None:
    """Return what dreams whole frames on the device of that backend; None where the processor does all but the steps.

    Raises SettingsError if ``frame_path`` is "device" and the backend executes steps only.
    """
    runs = hasattr(backend, "compile_function") and getattr(backend, "runs_functions", True)
    if frame_path == "device" and not runs:
        raise SettingsError(f"--frame-path device cannot be used by {backend.name}, which executes steps only; "
                            "--backend eager can")
    if frame_path == "processor" or not runs or (frame_path == "auto" and backend.device.type != "cuda"):
        return None
    return DeviceDreamer(model, backend, seed, find_targets, is_named=frame_path == "device")


class DeviceDreamer:
    """Runs the frame function of one model on one backend. Holds no state of a dream. ``is_named``: the user asked for
    it by name.
    """

    def __init__(self, model: Model, backend: Backend, seed: int, find_targets: FindTargets, is_named: bool = False
                 ) -> None:
        self.model, self.backend, self.seed = model, backend, seed
        self._find_targets, self._is_named = find_targets, is_named
        self._logged_flows: set[str] = set()
        self.support = lru_cache(maxsize=4 * CACHED_PROGRAMS)(partial(_support_of, backend))

    def targets_of(self, objective: Objective, references: References, height: int, width: int) -> AllTargets:
        """Return the targets of each term at an octave of this size."""
        return tuple(self._find_targets(term, references if term.needs else reference_images.NO_REFERENCES,
                                        *((height, width) if term.needs else (0, 0))) for term, _ in objective.terms)

    def runs(self, settings: DreamSettings) -> bool:
        """Whether the device has all that the settings name; what it lacks is logged, once."""
        if settings.flow not in DEVICE_FLOWS and settings.flow not in self._logged_flows:
            self._logged_flows.add(settings.flow)
            log.log(logging.WARNING if self._is_named else logging.INFO,
                    "the flow %s runs on the processor only, and so does all of a frame but its steps; on a device: %s",
                    settings.flow, ", ".join(DEVICE_FLOWS))
        return settings.flow in DEVICE_FLOWS and settings.trust in TRUSTS

    def match(self, image: NDArray[np.uint8], previous: Tensor | NDArray[np.uint8] | None, settings: DreamSettings,
              options: DreamOptions) -> DeviceMatch:
        """Begin to match a frame to the previous one; nothing waits for it here."""
        check_picture(image)
        size = options.field_size(*image.shape[:2])
        if isinstance(previous, np.ndarray):
            previous = upload(previous, self.backend.device)[None, None].float()
        if previous is not None and previous.shape[2:] != size:
            previous = None
        device, program = self.backend.device, self.program(settings, size, options, 0)
        numbers = np.array([previous is not None, settings.cut], np.float32)
        picture, (started, cut) = upload_all([image[None], numbers.reshape(2, 1, 1, 1, 1)], device)
        grey = torch.zeros(1, 1, *size, device=device) if previous is None else previous
        field, *found = program.match(picture, grey, started, cut)
        match = TensorMatch(*found)
        return DeviceMatch(image, field, match, previous, match_key(settings), Download(match.cut))

    def submit(self, state: DreamState, frame: Frame, settings: DreamSettings, references: References,
               match: object, options: DreamOptions) -> tuple[DreamState, PendingDream]:
        """Begin to dream a frame. Raises what ``Dreamer`` does, but nothing of the device's."""
        with options.stats.stage("dream"):
            size = options.field_size(*frame.image.shape[:2])
            before = self._upload_state(state, size)
            call = _Call(self, settings, references, options, size, state.index)
            if before is not None and options.cut_on_device:
                residual, grey, doubt, maturity, dream = call.whole(before, frame.image)
                after = FrameState(residual, grey, doubt, maturity, before.started)
                state = DreamState(index=state.index + 1, cuts=state.cuts, tensors=after)
            else:
                state, dream = self._dream_matched(state, before, frame, settings, match, options, call), None
        result = self._compose(call, state, frame, dream)
        return state, PendingDream(partial(_timed, options, result), partial(_residual_of, state))

    def _dream_matched(self, state: DreamState, before: FrameState | None, frame: Frame, settings: DreamSettings,
                       match: object, options: DreamOptions, call: _Call) -> DreamState:
        previous = None if before is None else before.grey
        if not (isinstance(match, DeviceMatch) and match.image is frame.image and match.key == match_key(settings)
                and match.previous is previous and match.field.shape[2:] == call.size):
            match = self.match(frame.image, previous, settings, options)
        is_cut = before is not None and match.cut
        after = call.first(match) if before is None or is_cut else call.carried(before, match)
        return DreamState(index=state.index + 1, cuts=state.cuts + is_cut, tensors=after)

    def _compose(self, call: _Call, state: DreamState, frame: Frame, dream: Tensor | None) -> Callable[[], Picture]:
        """Begin to make the picture, unless the frame function has made it; return what waits for it."""
        assert state.tensors is not None
        residual, options = state.tensors.residual, call.options
        if options.shown_residual:
            residual, dream = to_planes(options.shown_residual(state.index - 1, to_array(residual)),
                                        residual.device), None
        with options.stats.stage("compose"):
            if frame.picture is not None:
                return self._compose_file(call, residual, frame.picture)
            if dream is None:
                dream = call.compose(residual, frame.image)
            download = Download(dream, beside=not options.cut_on_device)
        return lambda: download.result()[0]

    def _compose_file(self, call: _Call, residual: Tensor, picture: Picture) -> Callable[[], Picture]:
        settings = call.settings
        mask = reference_images.mask_weights(call.references, *picture_size(picture))
        if device_picture.pays(picture, residual.device):
            return device_picture.compose_on_device(
                picture, residual, settings.strength, None if mask is None else constant_planes(mask, residual.device),
                settings.original_colors, programs_of(self.backend).composer).result
        host = Download(to_luma(residual).expand(-1, 3, -1, -1) if settings.original_colors else residual)
        return lambda: compose_picture(picture, np.ascontiguousarray(host.result()[0].transpose(1, 2, 0)),
                                       settings.strength, mask)

    def _upload_state(self, state: DreamState, size: tuple[int, int]) -> FrameState | None:
        """Return the state as tensors; None where there is nothing to carry, or it has another size."""
        device = self.backend.device
        if state.tensors is not None:
            return state.tensors if state.tensors.residual.shape[2:] == size else None
        if state.residual is None or state.grey is None or state.grey.shape != size:
            return None
        doubt = np.ones(lasting_shape(*size), np.float32) if state.doubt is None else state.doubt
        maturity = np.ones(size, np.float32) if state.maturity is None else state.maturity
        residual, grey, lasting, ages = upload_all([state.residual, state.grey, doubt, maturity], device)
        return FrameState(residual.permute(2, 0, 1)[None], grey[None, None].float(), lasting[None, None],
                          ages[None, None], torch.ones(1, 1, 1, 1, device=device))

    def program(self, settings: DreamSettings, size: tuple[int, int], options: DreamOptions, index: int) -> Program:
        sizes = octave_sizes(*size, settings.octaves, settings.octave_scale)
        if options.cycle_octaves:
            sizes = [sizes[index % len(sizes)]]
        spec = FrameSpec(size, tuple(sizes), settings.steps, DEVICE_FLOWS[settings.flow], settings.trust,
                         settings.legibility > 0, settings.stillness > 0,
                         getattr(self.backend, "portable_functions", False), options.cycle_octaves)
        structure = objectives.from_settings(settings, self.model).structure
        return programs_of(self.backend).program(spec, structure, GradientShape.of(settings))


def _support_of(backend: Backend, mask: Mask | None, height: int, width: int) -> Tensor | None:
    return None if mask is None else to_planes(mask.support(height, width), backend.device)


def to_planes(picture: NDArray[np.float32], device: torch.device) -> Tensor:
    """[h, w, C] -> [1, C, h, w] on a device."""
    return upload(picture, device).permute(2, 0, 1)[None]


def constant_planes(picture: NDArray[np.float32], device: torch.device) -> Tensor:
    """As ``to_planes``, for what nobody changes, as a mask: it is sent once."""
    return upload_constant(picture, device).permute(2, 0, 1)[None]


def _residual_of(state: DreamState) -> NDArray[np.float32]:
    assert state.tensors is not None
    return to_array(state.tensors.residual)


def _timed(options: DreamOptions, result: Callable[[], Picture]) -> Picture:
    with options.stats.stage("device_wait"):
        return result()


class _Call:
    """One frame's inputs, as tensors."""

    def __init__(self, dreamer: DeviceDreamer, settings: DreamSettings, references: References, options: DreamOptions,
                 size: tuple[int, int], index: int) -> None:
        self.size = size
        self._dreamer, self.settings, self.references, self.options = dreamer, settings, references, options
        self._index, self._device = index, dreamer.backend.device
        self._objective = objectives.from_settings(settings, dreamer.model)

    def carried(self, before: FrameState, match: DeviceMatch) -> FrameState:
        """Dream a frame to which the state is carried."""
        program, layout, inputs = self._prepare(self.options, warmup=True)
        values, *rest = inputs
        residual, doubt, maturity = program.advance(layout)(
            match.field, *match.found, before.residual, before.doubt, before.maturity, before.started, values, *rest)
        self._count_steps(0, len(program.spec.octaves) * program.spec.steps)
        return FrameState(residual, match.reference, doubt, maturity, before.started)

    def whole(self, before: FrameState, image: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        """Match, dream and compose in one function."""
        program, layout, numbers, rest = self._inputs(self.options, warmup=False)
        layout, mask = self._shown(layout, image)
        arrays, state = [image[None], *numbers], (before.grey, before.residual, before.doubt, before.maturity,
                                                  before.started)
        result: tuple[Tensor, ...]
        if program.spec.portable:
            picture, *uploaded = upload_all(arrays, self._device)
            result = program.whole(layout)(picture, *state, *uploaded, *mask, *rest)
        else:
            parts = tuple((start, torch_dtype(array.dtype), array.shape)
                          for start, array in zip(packed_starts(arrays), arrays, strict=False))
            result = program.whole_packed(layout, parts)(upload_packed(arrays, self._device), *state, *mask, *rest)
        self._count_steps(0, len(program.spec.octaves) * program.spec.steps)
        return result

    def compose(self, residual: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """Add a residual to an image, or make the levels of it."""
        layout, mask = self._shown(Layout(0), image)
        picture, strength = upload_all([image[None], np.full((1, 1, 1, 1), self.settings.strength, np.float32)],
                                       self._device)
        return shown(layout, picture, residual, strength, mask[0] if mask else None)

    def _shown(self, layout: Layout, image: NDArray[np.uint8]) -> tuple[Layout, list[Tensor]]:
        size = self.size if self.options.levels else image.shape[:2]
        weights = reference_images.mask_weights(self.references, *size)
        mask = [] if weights is None else [constant_planes(weights, self._device)]
        return replace(layout, mask=bool(mask), original_colors=self.settings.original_colors,
                       levels=self.options.levels), mask

    def first(self, match: DeviceMatch) -> FrameState:
        """Dream a frame that carries nothing, with all warm-up steps."""
        passes = 1 + self.settings.warmup_steps
        options = replace(self.options, cycle_octaves=self.options.cycle_octaves and passes == 1)
        program, layout, (values, shifts, *rest) = self._prepare(options, warmup=True, passes=passes)
        spec = replace(program.spec, bounded=self.options.cycle_octaves)
        (height, width), device = self.size, self._device
        plane = torch.zeros(1, 1, height, width, device=device)
        doubt = torch.ones(1, 1, *lasting_shape(height, width), device=device)
        state = FrameState(plane.expand(1, 3, height, width), plane, doubt, plane, plane[..., :1, :1])
        supports, targets = layout.split(rest, len(spec.octaves))
        numbers = device_frame.unpack(values)
        with torch.no_grad():
            begun = device_frame.begin(spec, match.field, match.found, state, numbers, None)
            picture, count = begun.seed, len(spec.octaves) * spec.steps
            step_size: Any = device_frame.numbers_of(self.settings, True)[1]
            for number in range(passes):
                picture = device_frame.ascend_pass(spec, program.single_steps, picture, None, step_size,
                                                   shifts[number * count:(number + 1) * count], supports[1:], targets)
                self._count_steps(number * count, count)
            residual, doubt, maturity = device_frame.finish(spec, match.field, begun, picture, numbers)
        return FrameState(residual, match.reference, doubt, maturity, torch.ones(1, 1, 1, 1, device=device))

    def _count_steps(self, before: int, count: int) -> None:
        """Call ``on_step`` for steps that were submitted together."""
        for number in range(before, before + count) if self.options.on_step else ():
            assert self.options.on_step is not None
            self.options.on_step(number + 1)

    def _prepare(self, options: DreamOptions, warmup: bool, passes: int = 1) -> tuple[Program, Layout, list[Tensor]]:
        """Return the program, and its inputs behind the state: numbers, shifts, supports, targets."""
        program, layout, numbers, rest = self._inputs(options, warmup, passes)
        return program, layout, [*upload_all(numbers, self._device), *rest]

    def _inputs(self, options: DreamOptions, warmup: bool, passes: int = 1
                ) -> tuple[Program, Layout, list[NDArray[Any]], list[Tensor]]:
        """Return the program, numbers and shifts as arrays, and the rest, which is on the device already."""
        settings = self.settings
        program = self._dreamer.program(settings, self.size, options, self._index)
        octaves = program.spec.octaves
        random = np.random.default_rng((self._dreamer.seed, self._index))
        steps = passes * len(octaves) * settings.steps
        shifts = random.integers(-settings.jitter, settings.jitter + 1, (steps, 2))
        values = np.array([device_frame.numbers_of(settings, warmup)], np.float32)
        supports = [self._dreamer.support(self.references.mask, *size) for size in (self.size, *octaves)]
        targets = [self._dreamer.targets_of(self._objective, self.references, *size) for size in octaves]
        found = [support for support in supports if support is not None]
        layout = Layout(len(found), tuple(len(of_term) for of_term in targets[0]))
        return program, layout, [values, shifts], [
            *found, *(target for of_octave in targets for target in flatten_targets(of_octave))]
