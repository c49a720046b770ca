"""The dreamer: (state, frame, settings) -> (state, dream). What is carried, at which scales it steps, in which order.

Nothing is kept between frames but the ``DreamState`` that goes in and comes back, so a run can be reset, replayed or
tested from any frame.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamdream.ascent import objectives
from streamdream.ascent.step import clamp_, shift_circular
from streamdream.backends import Backend, StepSpec
from streamdream.dream import reference_images, warp
from streamdream.dream.frame_matching import FrameMatch, match_frame, match_key, rematch
from streamdream.dream.reference_images import References
from streamdream.media.frame import downscale_area, to_array, to_signed_unit, to_tensor
from streamdream.system.stats import Stats

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.backends import AllTargets, Step
    from streamdream.dream.optical_flow import Grey
    from streamdream.models import Model
    from streamdream.settings import DreamSettings


SIZE_MULTIPLE = 16
"""Pixels; the coarsest stride of most layers that are dreamed."""


@dataclass(frozen=True)
class DreamState:
    """What one frame leaves to the next. The start of a dream is an empty one."""

    residual: NDArray[np.float32] | None = None
    """[h, w, 3] on the field: dream minus frame, in [-1, 1] units."""
    grey: NDArray[np.uint8] | None = None
    """[h, w]: the frame it belongs to."""
    index: int = 0
    """Frames dreamed so far; with the seed it fixes the random shifts."""
    cuts: int = 0
    """Scene cuts met so far."""


class Dreamer:
    """Dreams frames of one stream. ``field_height`` 0 dreams at the frame's own size."""

    def __init__(self, model: Model, backend: Backend, field_height: int = 0, seed: int = 0,
                 stats: Stats | None = None) -> None:
        self.model = model
        self.backend = backend
        self.field_height = field_height
        self.seed = seed
        self.stats = stats or Stats()
        self.cycle_octaves = False  # one octave a frame, the next one with the next: a live dream is renewed more often
        self.on_step: Callable[[int], None] | None = None  # told the steps done of the current frame
        self.on_picture: Callable[[Tensor], None] | None = None  # shown each of them, at the size of its octave
        self._steps = lru_cache(maxsize=64)(backend.compile)
        self._targets = lru_cache(maxsize=32)(partial(find_targets, model, backend))  # no cycle through this dreamer

    def __call__(self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings,
                 others: References | None = None, known: FrameMatch | None = None
                 ) -> tuple[DreamState, NDArray[np.uint8]]:
        """``image`` uint8 [H, W, 3] RGB -> the next state and the dream, same size.

        ``others`` are guide, style and mask; without it they are read from the files that the settings name. ``known``
        is a match of the image, if there is one; of another frame, or by other settings, it is made anew.
        """
        others = others or reference_images.read(settings)
        state = self.advance(state, image, settings, others, known)
        assert state.residual is not None
        with self.stats.stage("compose"):
            shown = warp.to_luma(state.residual) if settings.original_colors else state.residual
            dream = warp.compose(
                image, shown, settings.strength, reference_images.mask_weights(others, *image.shape[:2])
            )
        return state, dream

    def advance(self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings,
                others: References | None = None, known: FrameMatch | None = None) -> DreamState:
        """The next state only; its residual is what the dream adds to ``image``."""
        others = others or reference_images.read(settings)
        found = self.reuse_or_match(state, image, settings, known)
        grey = found.grey
        with self.stats.stage("carry"):
            frame = to_signed_unit(found.field)
            state, carried = self._carry(state, found, settings)
            reach = reference_images.mask_support(others, *grey.shape)
            if carried is not None and reach is not None:
                carried *= reach
        with self.stats.stage("dream"):
            passes = 1 if carried is not None else 1 + settings.warmup_steps
            seed = frame if carried is None else frame + carried
            dreamed = self._dream(
                clamp_(to_tensor(seed)).to(self.backend.device), state.index, passes, settings, others
            )
            residual = to_array(dreamed) - frame
        return replace(state, residual=residual, grey=grey, index=state.index + 1)

    def field_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which a frame of that size is dreamed; even, so that octaves line up."""
        if not 0 < self.field_height < height:
            return height, width
        return self.field_height, max(2, 2 * round(width * self.field_height / height / 2))

    def match(self, image: NDArray[np.uint8], previous: Grey | None, settings: DreamSettings) -> FrameMatch:
        """How a frame matches the one before it, ``previous`` on the field: it may be asked before that is dreamed."""
        with self.stats.stage("match"):
            height, width = self.field_size(*image.shape[:2])
            field = image if (height, width) == image.shape[:2] else downscale_area(image, height, width)
            return match_frame(image, field, previous, settings)

    def reuse_or_match(
        self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings, known: FrameMatch | None
    ) -> FrameMatch:
        """``known``, if it is what is asked for now; otherwise as much of it as still holds, and the rest anew."""
        previous = None if state.residual is None else state.grey
        if known is None or known.image is not image or known.grey.shape != self.field_size(*image.shape[:2]):
            return self.match(image, previous, settings)
        if known.previous is previous and known.key == match_key(settings):
            return known
        with self.stats.stage("match"):
            return rematch(known, previous, settings)

    def _carry(self, state: DreamState, found: FrameMatch, settings: DreamSettings
               ) -> tuple[DreamState, warp.Plane | None]:
        """The previous residual moved onto this frame; None at the start, after a cut, and when the size changed."""
        if found.cut:
            return replace(state, residual=None, cuts=state.cuts + 1), None
        if state.residual is None or found.motion is None or found.trust is None:
            return state, None
        return state, warp.propagate(state.residual, found.motion, found.trust, settings.keep)

    def _dream(self, seed: Tensor, index: int, passes: int, settings: DreamSettings, others: References) -> Tensor:
        """Steps on every octave, coarse to fine; what a coarse one adds is scaled up into the next.

        Mordvintsev et al. 2015, dream.ipynb: the detail of an octave is its dream minus its base.
        """
        random = np.random.default_rng((self.seed, index))
        objective = objectives.from_settings(settings, self.model)
        sizes = octave_sizes(seed.shape[2], seed.shape[3], settings.octaves, settings.octave_scale)
        if self.cycle_octaves and passes == 1:
            sizes = [sizes[index % len(sizes)]]
        picture, done = seed, 0
        for _ in range(passes):
            base, detail = picture, None
            for height, width in sizes:
                octave = _resize(base, height, width)
                picture = octave if detail is None else octave + _resize(detail, height, width)
                step = self._step(objective, height, width, settings, others)
                mask = reference_images.mask_support(others, height, width)
                reach = None if mask is None else to_tensor(mask).to(seed.device)
                for _ in range(settings.steps):
                    down, right = random.integers(-settings.jitter, settings.jitter + 1, 2).tolist()
                    picture = shift_circular(
                        step(shift_circular(picture, (down, right)), settings.step_size), (-down, -right)
                    )
                    if reach is not None:
                        picture = octave + (picture - octave) * reach
                    done += 1
                    if self.on_picture:
                        self.on_picture(picture)
                    if self.on_step:
                        self.on_step(done)
                detail = picture - octave
            if picture.shape != base.shape and detail is not None:  # it was a coarse octave's turn
                picture = base + _resize(detail, *base.shape[2:])
        return clamp_(picture) if self.cycle_octaves else picture

    def _step(self, objective: Objective, height: int, width: int, settings: DreamSettings, others: References
              ) -> Step:
        """The compiled step for that octave, told what the guide and the style look like there."""
        step = self._steps(StepSpec(objective, height, width, settings.smooth, settings.color))
        if not any(term.needs for term, _ in objective.terms):
            return step
        return partial(step, targets=self._targets(objective, others, height, width))


def find_targets(model: Model, backend: Backend, objective: Objective, others: References, height: int, width: int
                 ) -> AllTargets:
    """What the guide and the style look like to the objective's terms at an octave of that size."""
    pictures = reference_images.for_octave(others, height, width, _min_side(model, objective))
    return backend.targets(objective, {name: to_tensor(to_signed_unit(image)) for name, image in pictures.items()})


def fitting_octaves(model: Model, settings: DreamSettings, size: tuple[int, int]) -> int:
    """How many octaves a field of that (height, width) has room for, up to ``settings.octaves``; 0 if not even one.

    Raises UnknownName or SettingsError when the model lacks what the settings ask for.
    """
    least = _min_side(model, objectives.from_settings(settings, model))
    return next((octaves for octaves in range(settings.octaves, 0, -1)
                 if min(map(min, octave_sizes(*size, octaves, settings.octave_scale))) >= least), 0)


def _min_side(model: Model, objective: Objective) -> int:
    """Pixels of the shorter side of a picture that all taps need."""
    taps = model.taps()
    return max((taps[name].min_size for name in objective.taps), default=1)


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of each octave, coarsest first; the last is the picture's own.

    The others are multiples of ``GRID`` where they are large enough for that not to show: an engine is built for one
    size, and so pictures of nearly the same size, or scale, share most of theirs.
    """
    coarse = [(_on_grid(height, scale**n), _on_grid(width, scale**n)) for n in reversed(range(1, octaves))]
    return [*coarse, (height, width)]


def _on_grid(length: int, scale: float) -> int:
    if length / scale < 6 * SIZE_MULTIPLE:  # half a step of it would be more than a twelfth
        return max(1, round(length / scale))
    return SIZE_MULTIPLE * min(round(length / scale / SIZE_MULTIPLE), length // SIZE_MULTIPLE)


def _resize(picture: Tensor, height: int, width: int) -> Tensor:
    if picture.shape[2:] == (height, width):
        return picture
    smaller = height < picture.shape[2]
    with torch.no_grad():
        return F.interpolate(picture, (height, width), mode="bilinear", antialias=smaller)
