"""The live pipeline: three workers, connected by mailboxes that hold only the newest item.

    capture ──newest frame──▶ dream ──newest residual──┐
       └──────newest frame──────────────────────────▶ display ──▶ sink

*capture* reads the source in real time. *dream* takes the newest frame, dreams it and publishes the residual together
with the frame. *display* takes the newest frame, warps the newest residual to it and adds it at the rate of the camera,
however long a dream takes. A slow worker skips frames; there are no queues.
"""
from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamdream.automation.automation import Automation, content_key
from streamdream.automation.model_switcher import ModelSwitcher
from streamdream.dream import warp
from streamdream.dream.dreamer import DreamState
from streamdream.dream.octaves import fitting_octaves
from streamdream.dream.options import DreamOptions
from streamdream.dream.reference_images import LiveReader
from streamdream.dream.report import describe_run
from streamdream.errors import Closed, FieldTooSmall, SourceError, UsageError
from streamdream.live import compositor
from streamdream.live.mailbox import Mailbox
from streamdream.live.report import LiveReport
from streamdream.live.thread_tuner import ThreadTuner
from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area
from streamdream.system.process_tuning import lower_thread_priority
from streamdream.system.stats import percentile
from streamdream.system.torch_threads import process_threads

if TYPE_CHECKING:
    from streamdream.automation.controls import Controls, DreamRequest
    from streamdream.dream.dreamer import Dreamer
    from streamdream.live.field_times import FieldTimes, FieldTimesOfRun
    from streamdream.live.resolution import ResolutionController
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source
    from streamdream.settings import DreamSettings

Item = TypeVar("Item")
MakeOutput = Callable[[compositor.PublishedResidual | None, NDArray[np.uint8], "DreamSettings"], NDArray[np.uint8]]
log = logging.getLogger(__name__)
MAX_SAMPLES = 36_000
"""Latest frames whose latency is stored: ten minutes at 60 frames per second."""
POLL_SECONDS = 0.5
"""How often display checks the end of the run while no frame arrives."""
RESIZE_GRACE_SECONDS = 1.0
"""Time for a source that sends only as many lines as are dreamed, such as a browser, to send more."""
JOIN_TIMEOUT_SECONDS = 5.0
"""Time limit for each worker to stop."""


@dataclass(frozen=True)
class Captured:
    """A frame and the time of its capture, by ``time.perf_counter``."""

    frame: Frame
    at_seconds: float


class Live:
    """One live run. It reads ``controls`` before every dream and frame, so all settings may change during the run.

    ``automation`` changes them over time; ``build`` makes the dreamer of another model. ``device_slot`` makes the
    context of a dream, in which runs that share a device wait for it. ``make_output`` makes the picture for the sink
    from the newest residual, or None, and a frame: by default the dream. ``field_times`` are kept for the next run.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dreamer: Dreamer,
        resolution: ResolutionController,
        controls: Controls,
        device_slot: Callable[[], AbstractContextManager[object]] = nullcontext,
        automation: Automation | None = None,
        build: Callable[[str], Dreamer] | None = None,
        make_output: MakeOutput = compositor.composite,
        field_times: FieldTimesOfRun | None = None,
    ) -> None:
        self._source, self._sink, self._resolution = source, sink, resolution
        self._controls, self._device_slot, self._make_output = controls, device_slot, make_output
        self._automation = automation or Automation(controls)
        self._field_times, self._started_from_times = field_times, False
        self._models, self._stats = ModelSwitcher(dreamer, build), dreamer.options.stats
        self._for_dream: Mailbox[Captured] = Mailbox()
        self._for_display: Mailbox[Captured] = Mailbox()
        self._published: compositor.PublishedResidual | None = None
        self._last_good: DreamRequest | None = None  # the last one that could be dreamed
        self._enlarged_for: tuple[Any, ...] = ()  # content key of a request that needed a larger field
        self._last_warning = ""  # about a request that cannot be dreamed
        self._octaves = 0  # of the last dream
        self._references = LiveReader()
        self._target_height, self._resized_at = 0, 0.0  # lines of the field, and when it got them
        self._thread_tuner = ThreadTuner(process_threads() if dreamer.backend.device.type == "cpu" else 1)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._captured = self._shown = self._dreams = self._steps = 0
        self._fields: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._gaps: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._longest_gap = 0.0

    def run(self, seconds: float = float("inf")) -> LiveReport:
        """Run until the source ends, ``seconds`` have passed or ``stop`` is called. Return the report.

        *display* runs in this thread. Raises what any worker raised. The caller closes source and sink.
        """
        started, cpu_started = time.perf_counter(), time.process_time()
        workers = [threading.Thread(target=self._run_worker, args=(work,), name=f"streamdream-{name}", daemon=True)
                   for name, work in (("capture", self._capture), ("dream", self._dream))]
        for worker in workers:
            worker.start()
        try:
            self._display(started + seconds)
        except Closed:
            pass
        finally:
            self.stop()
            for worker in workers:
                worker.join(JOIN_TIMEOUT_SECONDS)  # a stalled source ends when the caller closes it
            self._models.close()
            if self._field_times:
                self._field_times.save()
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, UsageError) and not self._dreams:
                self._sink.abort()  # without a dream, no output is kept
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame, and so to this run
        self._sink.finish()
        return self._report(time.perf_counter() - started, time.process_time() - cpu_started)

    def stop(self) -> None:
        """End the run soon, without waiting. Thread-safe."""
        self._stop.set()
        self._for_dream.close()
        self._for_display.close()

    def _run_worker(self, work: Callable[[], None]) -> None:
        """Run a worker. Its error ends the run, which raises it; errors while the run stops are ignored."""
        try:
            work()
        except BaseException as error:
            if not self._stop.is_set():
                self._error = error
            self.stop()

    def _capture(self) -> None:
        for frame in self._source:
            if self._stop.is_set():
                return
            captured = Captured(self._automation.on_frame(frame), time.perf_counter())
            self._captured += 1
            self._for_display.put(captured)
            self._for_dream.put(captured)
        self._for_display.close()
        self._for_dream.close()

    def _dream(self) -> None:
        lower_thread_priority()  # display and capture need little CPU time, but without delay
        state, resets = DreamState(), self._controls.resets
        options = replace(self._models.current.options, on_step=self._count_step)
        while (captured := self._for_dream.take()) is not None and not self._stop.is_set():
            image = captured.frame.image
            dreamer, request = self._models.dreamer_for(
                self._automation.dream_request_at(captured.frame.pts_seconds), self._controls
            )
            times = self._times_of(dreamer, request, image)
            options = replace(options, field_height=self._resolution.field_height,
                              cycle_octaves=self._resolution.cycle_octaves)
            if options.field_height != self._target_height:
                self._target_height, self._resized_at = options.field_height, time.perf_counter()
            if resets != self._controls.resets:
                state, resets = replace(state, residual=None), self._controls.resets
            height, width = options.field_size(*image.shape[:2])
            state = resize_state(state, height, width).faded(request.kept)
            with self._device_slot(), self._thread_tuner.applied():
                began_at = time.perf_counter()
                try:
                    references = self._references.read(request.dream)
                    octaves = self._fit_octaves(dreamer, request, height, width)
                    warmup_steps = self._resolution.warmup_steps(request.dream.warmup_steps, octaves,
                                                                 first=not self._dreams)
                    settings = replace(request.dream, warmup_steps=warmup_steps, octaves=octaves)
                    state = dreamer.advance(state, image, settings, references, options=options)
                except (UsageError, SourceError) as error:
                    self._handle_request_error(error, request, height)
                    continue
            self._last_good, self._last_warning = request, ""
            if self._enlarged_for and self._enlarged_for != content_key(request):
                self._enlarged_for = ()
                self._resolution.reset_minimum()
            if state.residual is not None:
                self._published = compositor.prepare_residual(state.residual, image, references)
            self._dreams += 1
            self._fields[f"{width}x{height}{'' if options.cycle_octaves else ' all octaves'}"] += 1
            elapsed = time.perf_counter() - began_at
            if not self._thread_tuner.probing:
                if times and height == self._resolution.field_height and self._dreams > 1:
                    times.observe(self._resolution.level, elapsed)
                self._resolution.observe(elapsed, self._dreams, octaves, height)
            self._thread_tuner.observe(elapsed, height, octaves)

    def _times_of(self, dreamer: Dreamer, request: DreamRequest, image: NDArray[np.uint8]) -> FieldTimes | None:
        """Return the kept times of that content, if any are kept; at the first call, begin with the field they say."""
        if self._field_times is None:
            return None
        times = self._field_times.of(dreamer, request, *image.shape[:2])
        if not self._started_from_times:
            self._started_from_times = True
            self._resolution.start_from(times.stored)
        return times

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
            if lines < self._target_height:
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
        self._steps += 1

    def _display(self, deadline: float) -> None:
        last_shown_at = None
        while not self._stop.is_set() and (now := time.perf_counter()) < deadline:
            captured = self._for_display.take(min(POLL_SECONDS, deadline - now))
            if captured is None:
                if self._for_display.closed:
                    return
                continue
            frame = captured.frame
            with self._stats.stage("display"):
                output = self._make_output(
                    self._published, frame.image, self._automation.display_settings_at(frame.pts_seconds)
                )
            with self._stats.stage("sink"):
                self._sink.write(output, frame)
            now = time.perf_counter()
            self._shown += 1
            self._latencies.append(now - captured.at_seconds)
            if last_shown_at is not None:
                self._gaps.append(now - last_shown_at)
                self._longest_gap = max(self._longest_gap, now - last_shown_at)
            last_shown_at = now

    def _report(self, seconds: float, cpu_seconds: float) -> LiveReport:
        options = DreamOptions(self._target_height or self._resolution.field_height, stats=self._stats)
        size, gaps = (self._source.height, self._source.width), list(self._gaps)
        return LiveReport(
            captured=self._captured, frames=self._shown, dropped=max(0, self._captured - self._shown),
            dreams=self._dreams, steps=self._steps, seconds=round(seconds, 3),
            latency_ms={name: round(1e3 * percentile(self._latencies, fraction), 2)
                        for name, fraction in (("p50", 0.5), ("p95", 0.95))},
            longest_gap_ms=round(1e3 * self._longest_gap, 2),
            jitter_ms=round(1e3 * (percentile(gaps, 0.95) - percentile(gaps, 0.5)), 2),
            cpu_share=round(cpu_seconds / max(seconds, 1e-3), 3), fields=dict(self._fields),
            warnings=self._source.warnings + self._sink.warnings,
            **describe_run(self._models.current, options, self._controls.current(), size))


def resize_state(state: DreamState, height: int, width: int) -> DreamState:
    """Scale the state to a field of another size, so that a change of size does not restart the dream."""
    if state.residual is None or state.grey is None or state.grey.shape == (height, width):
        return state
    residual: warp.Plane = cv2().resize(state.residual, (width, height), interpolation=cv2().INTER_LINEAR)
    maturity = None if state.maturity is None else cv2().resize(state.maturity, (width, height))
    return replace(state, residual=residual, grey=downscale_area(state.grey, height, width), maturity=maturity)
