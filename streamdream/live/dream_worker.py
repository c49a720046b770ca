"""The worker that dreams: the newest frame, with the settings of the moment, at the size that there is time for.

On the reference path it publishes each residual, which the display warps to the frames that follow. Where a device
dreams whole frames, it submits them, and each is shown with its own dream (dreams_in_flight.py).
"""
from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamdream.automation.automation import Automation, content_key
from streamdream.automation.model_switcher import ModelSwitcher
from streamdream.dream.octaves import fitting_octaves
from streamdream.dream.options import DreamOptions
from streamdream.dream.reference_images import LiveReader, References
from streamdream.dream.state import DreamState
from streamdream.errors import FieldTooSmall, SourceError, UsageError
from streamdream.live import compositor
from streamdream.live.dreams_in_flight import DeviceUse, DreamsInFlight, SoleUse, Submitted
from streamdream.live.mailbox import Mailbox
from streamdream.live.thread_tuner import ThreadTuner
from streamdream.system.process_tuning import lower_thread_priority
from streamdream.system.torch_threads import process_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamdream.automation.controls import DreamRequest
    from streamdream.dream.dreamer import Dreamer
    from streamdream.live.captured import Captured
    from streamdream.live.field_times import FieldTimes, FieldTimesOfRun
    from streamdream.live.frame_pace import FramePace
    from streamdream.live.resolution import ResolutionController
    from streamdream.settings import DreamSettings

DeviceSlot = Callable[[], AbstractContextManager[DeviceUse | None]]
log = logging.getLogger(__name__)
UNMEASURED_DREAMS = 4
"""Dreams of a kind, for each octave, whose time says nothing: a graph is captured after a few calls."""
RESIZE_GRACE_SECONDS = 1.0
"""Time for a source that sends only as many lines as are dreamed, such as a browser, to send more."""


class DreamWorker:
    """Dreams the newest of the frames that are put into ``frames``, until that is closed.

    ``publish`` gets the frames of ``in_flight``, each with its dream, or with the ``levels`` of ``DreamOptions``.
    """

    def __init__(self, dreamer: Dreamer, resolution: ResolutionController, automation: Automation, pace: FramePace,
                 publish: Callable[[Captured], None], device_slot: DeviceSlot,
                 build: Callable[[str], Dreamer] | None = None, field_times: FieldTimesOfRun | None = None,
                 levels: bool = False) -> None:
        self.frames: Mailbox[Captured] = Mailbox()
        self.in_flight = DreamsInFlight(publish)
        self.fields: Counter[str] = Counter()
        self.dreams = self.steps = 0
        self.target_height = 0
        """Lines of the field."""
        self._automation, self._controls, self._device_slot = automation, automation.controls, device_slot
        self._models, self._pace, self._sole_use = ModelSwitcher(dreamer, build), pace, SoleUse()
        self._resolution, self._required_rate = resolution, resolution.required_rate
        self._field_times, self._started_from_times = field_times, False
        self._times: FieldTimes | None = None  # of the last dream
        self._options, self._levels, self._publish = dreamer.options, levels, publish
        self._is_processor = dreamer.backend.device.type == "cpu"
        self._thread_tuner = ThreadTuner(process_threads() if self._is_processor else 1)
        self._references = LiveReader()
        self._published: compositor.PublishedResidual | None = None
        self._every_frame = False
        self._of_kind = 0  # dreams of this kind, one after the other
        self._kind: tuple[Any, ...] = ()  # of the last dream in flight: those of another take long to prepare
        self._state, self._resets = DreamState(), self._controls.resets
        self._last_good: DreamRequest | None = None  # the last one that could be dreamed
        self._enlarged_for: tuple[Any, ...] = ()  # content key of a request that needed a larger field
        self._last_warning = ""  # about a request that cannot be dreamed
        self._octaves = 0  # of the last dream
        self._resized_at = 0.0  # when the field got its lines

    @property
    def current(self) -> Dreamer:
        return self._models.current

    @property
    def warps(self) -> bool:
        """Whether the frames that are captured now are shown with the newest residual, warped to them."""
        return not self._every_frame or self.in_flight.stalled

    def published(self) -> compositor.PublishedResidual | None:
        """Return the newest residual, for *display*."""
        if (newer := self.in_flight.take_residual()) is not None:
            self._published = newer
        return self._published

    def run(self) -> None:
        """Dream until ``frames`` is closed."""
        if self._is_processor:
            lower_thread_priority()  # display and capture need little CPU time, but without delay
        try:
            while (captured := self._take()) is not None:
                with self._device_slot() as use:
                    self._dream(self.frames.take(0) or captured, use)
        finally:
            self.in_flight.close()

    def close(self) -> None:
        """Wait for what was begun in the background; keep what was measured. Call it when ``in_flight`` has ended."""
        self._observe_finished()
        self._models.close()
        if self._field_times:
            self._field_times.save()

    def _take(self) -> Captured | None:
        self.in_flight.wait_for_room()
        captured = self.frames.take()
        return None if self.in_flight.cancelled else captured

    def _dream(self, captured: Captured, use: DeviceUse | None) -> None:
        self._observe_finished()
        image = captured.frame.image
        dreamer, request = self._models.dreamer_for(
            self._automation.dream_request_at(captured.frame.pts_seconds), self._controls
        )
        on_device = dreamer.on_device(request.dream)
        was_every_frame = self._every_frame
        self._set_pace(on_device)
        if was_every_frame and not self._every_frame:
            self._publish(captured)  # with the last residual
        times = self._times_of(dreamer, request, image, on_device)
        options = replace(self._options, field_height=self._resolution.field_height, on_step=self._count_step,
                          cycle_octaves=self._resolution.cycle_octaves, cut_on_device=True, levels=self._levels)
        if options.field_height != self.target_height:
            self.target_height, self._resized_at = options.field_height, time.perf_counter()
        height, width = options.field_size(*image.shape[:2])
        state = self._carried_state(height, width, request.kept)
        began_at = time.perf_counter()
        try:
            references = self._references.read(request.dream)
            octaves = self._fit_octaves(dreamer, request, height, width)
            warmup_steps = self._resolution.warmup_steps(request.dream.warmup_steps, octaves, first=not self.dreams)
            settings = replace(request.dream, warmup_steps=warmup_steps, octaves=octaves)
            if on_device and self._every_frame:
                self._submit(dreamer, state, captured, settings, references, options, use, (height, width))
            else:
                self._advance(dreamer, state, captured, settings, references, options, on_device)
        except (UsageError, SourceError) as error:
            self._state = state
            if self._every_frame:
                self._publish(captured)
            self._handle_request_error(error, request, height)
            return
        self._last_good, self._last_warning = request, ""
        if self._enlarged_for and self._enlarged_for != content_key(request):
            self._enlarged_for = ()
            self._resolution.reset_minimum()
        self.fields[f"{width}x{height}{'' if options.cycle_octaves else ' all octaves'}"] += 1
        if on_device and self._every_frame:
            return  # it is measured when it has finished
        self.dreams += 1
        elapsed = time.perf_counter() - began_at
        if not self._thread_tuner.probing:
            self._observe(elapsed, times, octaves, height)
        self._thread_tuner.observe(elapsed, height, octaves)

    def _submit(self, dreamer: Dreamer, state: DreamState, captured: Captured, settings: DreamSettings,
                references: References, options: DreamOptions, use: DeviceUse | None, size: tuple[int, int]) -> None:
        """Begin to dream the frame on the device; *finish* waits for it."""
        kind = (dreamer, size, captured.frame.image.shape, options.cycle_octaves, settings.octaves, settings.steps,
                settings.layers, settings.trust, settings.flow, settings.legibility > 0, settings.stillness > 0)
        self._of_kind = self._of_kind + 1 if kind == self._kind else 1
        is_prepared = self._of_kind > UNMEASURED_DREAMS * settings.octaves
        self.in_flight.begin(first=kind != self._kind)
        try:
            self._state, pending = dreamer.submit(state, captured.frame, settings, references, options=options)
        except BaseException:
            self.in_flight.abandon()
            raise
        self._kind = kind
        self.in_flight.put(Submitted(captured, pending, references, (use or self._sole_use).extend(),
                                     self._resolution.level if is_prepared else "", size[0], settings.octaves))

    def _advance(self, dreamer: Dreamer, state: DreamState, captured: Captured, settings: DreamSettings,
                 references: References, options: DreamOptions, on_device: bool) -> None:
        """Dream the frame, and publish its residual."""
        image = captured.frame.image
        if on_device:
            self._state, pending = dreamer.submit(state, captured.frame, settings, references, options=options)
            residual = pending.residual()
        else:
            with self._thread_tuner.applied():
                self._state = dreamer.advance(state, image, settings, references, options=options)
            assert self._state.residual is not None
            residual = self._state.residual
        self.in_flight.forget_residual()
        self._published = compositor.prepare_residual(residual, image, references)

    def _set_pace(self, on_device: bool) -> None:
        """Choose whether each frame is shown with its own dream, and with it the time that a dream may take."""
        if on_device and self._every_frame and self._resolution.is_too_slow and self._pace.give_up():
            log.info("the device does not dream every frame in time: the dreams of some are shown on all")
        every_frame = on_device and self._pace.keeps_up
        self._resolution.require(self._pace.rate if every_frame else self._required_rate,
                                 anew=every_frame != self._every_frame)
        self._every_frame = every_frame

    def _carried_state(self, height: int, width: int, kept: float) -> DreamState:
        """Return the state to go on from, at the size of the field."""
        if self._resets != self._controls.resets:
            self._state, self._resets = self._state.emptied(), self._controls.resets
        return self._state.resized(height, width).faded(kept)

    def _observe_finished(self) -> None:
        """Count and measure the dreams that have finished on the device."""
        while self.in_flight.finished:
            finished = self.in_flight.finished.popleft()
            self.dreams += 1
            if finished.level == self._resolution.level:  # else it belongs to another field
                self._observe(finished.seconds, self._times, finished.octaves, finished.height)

    def _observe(self, seconds: float, times: FieldTimes | None, octaves: int, height: int) -> None:
        if times and height == self._resolution.field_height and self.dreams > 1:
            times.observe(self._resolution.level, seconds)
        self._resolution.observe(seconds, self.dreams, octaves, height)

    def _times_of(self, dreamer: Dreamer, request: DreamRequest, image: NDArray[np.uint8], on_device: bool
                  ) -> FieldTimes | None:
        """Return the kept times of that content, if any are kept; at the first call, begin with the field they say."""
        is_first, self._started_from_times = not self._started_from_times, True
        if is_first and on_device:
            self._resolution.start_from_largest()
        if self._field_times is None:
            return None
        self._times = self._field_times.of(dreamer, request, image.shape[0], image.shape[1], on_device)
        if is_first:
            self._resolution.start_from(self._times.stored)
        return self._times

    def _fit_octaves(self, dreamer: Dreamer, request: DreamRequest, height: int, width: int) -> int:
        """Return the number of octaves to dream: without the coarsest, if those are too small for the layers."""
        octaves = max(1, fitting_octaves(dreamer.model, request.dream, (height, width)))
        if octaves != self._octaves and octaves < request.dream.octaves:
            log.info("%d of %d octaves fit a field of %dx%d; the coarsest are left out", octaves, request.dream.octaves,
                     width, height)
        self._octaves = octaves
        return octaves

    def _handle_request_error(self, error: UsageError | SourceError, request: DreamRequest, lines: int) -> None:
        """Handle a request that cannot be dreamed, without ending a run that has dreamed before.

        If the field is too small for a layer, select a larger one. If only this picture has fewer lines than the field,
        wait for the source to send more. Otherwise log a warning and revert to the last request that could be dreamed;
        if that is the same, the display goes on without new dreams. Raises ``error`` when there is no such request.
        """
        if isinstance(error, FieldTooSmall):
            if lines < self.target_height:
                if time.perf_counter() < self._resized_at + RESIZE_GRACE_SECONDS:
                    return
            elif self._resolution.reject_current():
                self._enlarged_for = content_key(request)
                return
        if self._last_good is None:
            raise error
        if self._last_warning != str(error):
            self._last_warning = str(error)
            log.warning("%s; the run goes on as before", error)
        self._controls.revert_to(self._last_good)

    def _count_step(self, steps_done: int) -> None:
        self.steps += 1
