"""The dreamer: (state, frame, settings) -> (state, dream).

``DreamState`` is all that one frame passes on to the next, so a run can be reset, replayed or tested from any frame.
Where a GPU dreams, device_dreamer.py does all of it there; what is here is the reference.
"""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import Objective
from streamdream.ascent.step import clamp_, shift_circular
from streamdream.backends import Backend, StepSpec
from streamdream.dream import consistency, device_dreamer, legibility, reference_images, step_gain, warp
from streamdream.dream.device_dreamer import PendingDream
from streamdream.dream.frame_matching import FrameMatch, match_image, match_key, rematch
from streamdream.dream.octaves import min_side, octave_sizes
from streamdream.dream.options import DreamOptions
from streamdream.dream.reference_images import References
from streamdream.dream.state import DreamState
from streamdream.dream.trust import DECAYING, decay_doubt
from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.frame import Frame, Picture, check_picture, picture_size, to_array, to_signed_unit, to_tensor

if TYPE_CHECKING:
    from streamdream.ascent.terms import Targets, Term
    from streamdream.backends import Step
    from streamdream.dream.device_dreamer import DeviceMatch
    from streamdream.dream.optical_flow import Flow
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

    Match = FrameMatch | DeviceMatch

__all__ = ["DreamState", "Dreamer", "find_targets"]


class Dreamer:
    """Dreams frames with one model on one backend.

    It caches compiled steps and targets but holds no state of a dream, so several runs may share it. ``options`` is the
    default of the methods; ``field_height`` 0 means the height of the frame.
    """

    def __init__(self, model: Model, backend: Backend, field_height: int = 0, seed: int = 0,
                 frame_path: str = "processor") -> None:
        """``frame_path`` is one of ``options.FRAME_PATHS``. Raises SettingsError if the backend lacks it."""
        self.model = model
        self.backend = backend
        self.seed = seed
        self.options = DreamOptions(field_height)
        self._steps = lru_cache(maxsize=64)(backend.compile)
        self._targets = lru_cache(maxsize=64)(partial(find_targets, model, backend))  # no cycle through this dreamer
        self._device = device_dreamer.create(model, backend, seed, self._targets, frame_path)

    def __call__(self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings,
                 references: References | None = None, frame_match: Match | None = None,
                 options: DreamOptions | None = None) -> tuple[DreamState, NDArray[np.uint8]]:
        """Dream one frame: ``image`` uint8 [H, W, 3] RGB -> the next state and the dream, of the same size.

        ``references`` are guide, style and mask; None reads the files that the settings name. The valid parts of
        ``frame_match`` are reused; the rest is computed. Raises UsageError, SourceError or FieldTooSmall.
        """
        state, pending = self.submit(state, Frame(image, 0.0), settings, references, frame_match, options)
        return state, cast(NDArray[np.uint8], pending.result())

    def on_device(self, settings: DreamSettings, options: DreamOptions | None = None) -> bool:
        """Whether all of a frame is computed on the device of the steps."""
        shows_steps = options is not None and options.on_picture is not None
        return self._device is not None and not shows_steps and self._device.runs(settings)

    def submit(self, state: DreamState, frame: Frame, settings: DreamSettings, references: References | None = None,
               frame_match: Match | None = None, options: DreamOptions | None = None
               ) -> tuple[DreamState, PendingDream]:
        """Begin to dream the image of a frame, and to compose the dream in its picture; in the image where it has no
        picture. On a device the next frame may be submitted before the dream of this one is fetched.

        Otherwise as a call.
        """
        references, options = references or reference_images.read(settings), options or self.options
        if self._device is not None and self.on_device(settings, options):
            return self._device.submit(state, frame, settings, references, frame_match, options)
        state, dream = self._dream_here(state.to_host(), frame, settings, references, frame_match, options)
        return state, PendingDream(lambda: dream, lambda: cast(NDArray[np.float32], state.residual))

    def _dream_here(self, state: DreamState, frame: Frame, settings: DreamSettings, references: References,
                    frame_match: Match | None, options: DreamOptions) -> tuple[DreamState, Picture]:
        state = self.advance(state, frame.image, settings, references, frame_match, options)
        assert state.residual is not None
        with options.stats.stage("compose"):
            residual = state.residual
            if options.shown_residual:
                residual = options.shown_residual(state.index - 1, residual)
            residual = warp.to_luma(residual) if settings.original_colors else residual
            picture = frame.image if frame.picture is None else frame.picture
            mask = reference_images.mask_weights(references, *picture_size(picture))
            compose = compose_image if frame.picture is None else compose_picture
            return state, compose(picture, residual, settings.strength, mask)

    def advance(self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings,
                references: References | None = None, frame_match: Match | None = None,
                options: DreamOptions | None = None) -> DreamState:
        """Return the next state only; its residual is what the dream adds to ``image``: by the reference path.

        Raises as a call does.
        """
        references, options = references or reference_images.read(settings), options or self.options
        state = state.to_host()
        current = self.reuse_or_match(state, image, settings, frame_match, options)
        with options.stats.stage("carry"):  # a key of reports that others read, as "dream" is: warp and ascend
            frame = to_signed_unit(current.field)
            settings = consistency.with_memory(settings)
            state, carried, trust = _warp_residual(state, current, settings)
            maturity = None
            if trust is not None:
                maturity = step_gain.carry(state.maturity, cast("Flow", current.motion), trust, settings.keep)
            support = reference_images.mask_support(references, *current.grey.shape)
            if carried is not None and support is not None:
                carried *= support
        with options.stats.stage("dream"):
            passes = 1 if carried is not None else 1 + settings.warmup_steps
            length = 1.0 if carried is not None else consistency.first_gain(settings)
            seed = clamp_(to_tensor(frame if carried is None else frame + carried)).to(self.backend.device)
            gain = step_gain.of(maturity, settings)
            stepped = consistency.with_step(settings, length)
            dreamed = self._ascend(seed, state.index, passes, stepped, references, options, gain)
            base = to_array(seed) - carried if current.clipped and carried is not None else frame
            residual = legibility.shape_steps(to_array(dreamed) - base, carried, frame, settings.legibility)
            maturity = step_gain.mature(maturity, gain, current.grey.shape, settings.keep, passes * length)
        return replace(state, residual=residual, grey=current.reference, index=state.index + 1, maturity=maturity)

    def match(self, image: NDArray[np.uint8], previous: Any, settings: DreamSettings,
              options: DreamOptions | None = None) -> Match:
        """Match a frame to the previous one, which need not have been dreamed yet: ``previous`` is the ``reference`` of
        its match, or None. On a device it is begun only.
        """
        options = options or self.options
        if self._device is not None and self.on_device(settings, options):
            return self._device.match(image, previous, settings, options)
        return self.match_on_host(image, previous, settings, options)

    def match_on_host(self, image: NDArray[np.uint8], previous: Any, settings: DreamSettings,
                      options: DreamOptions | None = None) -> FrameMatch:
        """As ``match``, by the reference path."""
        check_picture(image)
        options = options or self.options
        if previous is not None and not isinstance(previous, np.ndarray):
            previous = to_array(previous)[..., 0].astype(np.uint8)
        return match_image(image, previous, settings, options)

    def reuse_or_match(self, state: DreamState, image: NDArray[np.uint8], settings: DreamSettings,
                       frame_match: Match | None, options: DreamOptions | None = None) -> FrameMatch:
        """Return ``frame_match`` if it is valid for this state and settings; otherwise recompute what is not."""
        options = options or self.options
        previous = None if state.residual is None else state.grey
        if (not isinstance(frame_match, FrameMatch) or frame_match.image is not image
                or frame_match.grey.shape != options.field_size(*image.shape[:2])):
            return self.match_on_host(image, previous, settings, options)
        if frame_match.previous is previous and frame_match.key == match_key(settings):
            return frame_match
        with options.stats.stage("match"):
            return rematch(frame_match, previous, settings)

    def _ascend(self, seed: Tensor, index: int, passes: int, settings: DreamSettings, references: References,
                options: DreamOptions, gain: warp.Plane | None = None) -> Tensor:
        """Take steps on every octave, coarse to fine; add the scaled-up detail of each octave to the next.

        The detail of an octave is its dream minus its base, as in Mordvintsev et al. 2015, dream.ipynb.
        """
        random = np.random.default_rng((self.seed, index))
        objective = objectives.from_settings(settings, self.model)
        sizes = octave_sizes(seed.shape[2], seed.shape[3], settings.octaves, settings.octave_scale)
        if options.cycle_octaves and passes == 1:
            sizes = [sizes[index % len(sizes)]]
        picture, steps_done = seed, 0
        for _ in range(passes):
            base, detail = picture, None
            for height, width in sizes:
                octave = _resize(base, height, width)
                picture = octave if detail is None else octave + _resize(detail, height, width)
                step = self._step(objective, height, width, settings, references)
                mask = reference_images.mask_support(references, height, width)
                support = None if mask is None else to_tensor(mask).to(seed.device)
                octave_gain = step_gain.at_octave(gain, octave)
                for _ in range(settings.steps):
                    down, right = random.integers(-settings.jitter, settings.jitter + 1, 2).tolist()
                    moved = shift_circular(
                        step(shift_circular(picture, (down, right)), settings.step_size), (-down, -right)
                    )
                    picture = step_gain.lengthen(picture, moved, octave_gain)
                    if support is not None:
                        picture = octave + (picture - octave) * support
                    steps_done += 1
                    if options.on_picture:
                        options.on_picture(picture)
                    if options.on_step:
                        options.on_step(steps_done)
                detail = picture - octave
            if picture.shape != base.shape and detail is not None:  # only a coarse octave was dreamed
                picture = base + _resize(detail, *base.shape[2:])
        return clamp_(picture) if options.cycle_octaves else picture

    def _step(self, objective: Objective, height: int, width: int, settings: DreamSettings, references: References
              ) -> Step:
        """Return the compiled step for an octave of this size, with its targets bound to it."""
        step = self._steps(StepSpec(objective.structure, height, width, GradientShape.of(settings)))
        targets = tuple(self._targets(term, references, height, width) if term.needs
                        else self._targets(term, reference_images.NO_REFERENCES, 0, 0) for term, _ in objective.terms)
        return partial(step, targets=targets) if any(targets) else step


def _warp_residual(state: DreamState, match: FrameMatch, settings: DreamSettings
                   ) -> tuple[DreamState, warp.Plane | None, warp.Plane | None]:
    """Return the state, the previous residual warped to this frame, and the trust that it was carried with.

    Both are None at the start, after a cut or a new size.
    """
    if match.cut:
        return replace(state, residual=None, doubt=None, cuts=state.cuts + 1), None, None
    if state.residual is None or match.motion is None or match.trust is None:
        return replace(state, doubt=None), None, None
    trust, doubt = match.trust, state.doubt
    if settings.trust in DECAYING:
        trust, doubt = decay_doubt(trust, match.motion, doubt)
    if settings.stillness:
        trust = trust * warp.stillness_mask(match.motion, settings.stillness)
    carried = warp.warp_residual(state.residual, match.motion, trust, settings.keep)
    return replace(state, doubt=doubt), carried, trust


def find_targets(model: Model, backend: Backend, term: Term, references: References, height: int, width: int
                 ) -> Targets:
    """Compute the targets of a term, which for a guide or a style are features at an octave of this size."""
    objective, pictures = Objective(((term, 1.0),)), {}
    if term.needs:
        images = reference_images.for_octave(references, height, width, min_side(model, objective))
        pictures = {name: to_tensor(to_signed_unit(image)) for name, image in images.items()}
    return backend.targets(objective, pictures)[0]


def _resize(picture: Tensor, height: int, width: int) -> Tensor:
    if picture.shape[2:] == (height, width):
        return picture
    smaller = height < picture.shape[2]
    with torch.no_grad():
        return F.interpolate(picture, (height, width), mode="bilinear", antialias=smaller)
