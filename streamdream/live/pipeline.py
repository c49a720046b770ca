"""The way of a frame, live: three workers, and between them one place for the newest thing each.

    capture ──newest frame──▶ dream ──newest residual──┐
       └──────newest frame──────────────────────────▶ display ──▶ sink

*capture* reads the source at its pace. *dream* takes the newest frame, carries, steps and publishes a residual that
knows its frame. *display* takes every frame it can, warps the newest residual to it and composes: it runs at the
camera's rate however long a dream takes. Whoever is late finds the newest, never a queue.
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
from streamdream.system.torch_threads import default_threads

if TYPE_CHECKING:
    from streamdream.automation.controls import Controls, DreamRequest
    from streamdream.dream.dreamer import Dreamer
    from streamdream.live.resolution import ResolutionController
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source
    from streamdream.settings import DreamSettings

Item = TypeVar("Item")
Compose = Callable[["compositor.PublishedResidual | None", "NDArray[np.uint8]", "DreamSettings"], "NDArray[np.uint8]"]
log = logging.getLogger(__name__)
MAX_SAMPLES = 36_000
"""Frames whose latency is kept: ten minutes at 60 a second, and bounded."""
POLL_SECONDS = 0.5
"""How often display looks at the clock while no frame comes."""
RESIZE_GRACE_SECONDS = 1.0
"""How long a source that sends as many lines as are dreamed, as a browser does, has to send more."""
JOIN_TIMEOUT_SECONDS = 5.0
"""How long the end waits for a worker."""


@dataclass(frozen=True)
class Captured:
    """A frame and when it came, on ``time.perf_counter``."""

    frame: Frame
    at_seconds: float


class Live:
    """One live run. ``controls`` are asked before every dream and every frame, so all of it may change meanwhile.

    ``automation`` turns them by itself; ``build`` makes the dreamer of another network when one is wanted; ``turn`` is
    entered for each dream: runs that share a device wait there for theirs; ``compose`` is what the sink gets of the
    newest residual, or None, and a frame.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dreamer: Dreamer,
        resolution: ResolutionController,
        controls: Controls,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        automation: Automation | None = None,
        build: Callable[[str], Dreamer] | None = None,
        compose: Compose = compositor.composite,
    ) -> None:
        self._source, self._sink, self._resolution = source, sink, resolution
        self._controls, self._turn, self._automation, self._compose = (
            controls,
            turn,
            automation or Automation(controls),
            compose,
        )
        self._models, self._stats = ModelSwitcher(dreamer, build), dreamer.options.stats
        self._for_dream: Mailbox[Captured] = Mailbox()
        self._for_display: Mailbox[Captured] = Mailbox()
        self._published: compositor.PublishedResidual | None = None
        self._last_good: DreamRequest | None = None  # what was dreamed last
        self._refused: tuple[Any, ...] = ()  # what the governor chose a larger field for
        self._complaint = ""  # the last warning about what cannot be dreamed
        self._octaves = 0  # how many were dreamed last
        self._references = LiveReader()
        self._target_height, self._since_seconds = 0, 0.0  # lines of the field, and since when
        self._thread_tuner = ThreadTuner(default_threads() if dreamer.backend.device.type == "cpu" else 1)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._captured = self._shown = self._dreams = self._steps = 0
        self._fields: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._gaps: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._longest_gap = 0.0

    def run(self, seconds: float = float("inf")) -> LiveReport:
        """Runs until the source ends, ``seconds`` have passed or ``stop`` is called; display works in this thread.

        Raises what any worker raised. The caller owns source and sink.
        """
        began, cpu = time.perf_counter(), time.process_time()
        workers = [threading.Thread(target=self._run_worker, args=(work,), name=f"streamdream-{name}", daemon=True)
                   for name, work in (("capture", self._capture), ("dream", self._dream))]
        for worker in workers:
            worker.start()
        try:
            self._display(began + seconds)
        except Closed:
            pass
        finally:
            self.stop()
            for worker in workers:
                worker.join(JOIN_TIMEOUT_SECONDS)  # a source that stalls ends when its owner closes it
            self._models.close()
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, UsageError) and not self._dreams:
                self._sink.abort()  # nothing was dreamed, so nothing is worth keeping
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and so this run
        self._sink.finish()
        return self._report(time.perf_counter() - began, time.process_time() - cpu)

    def stop(self) -> None:
        """Ends the run soon; from any thread."""
        self._stop.set()
        self._for_dream.close()
        self._for_display.close()

    def _run_worker(self, work: Callable[[], None]) -> None:
        """A worker's error ends the run, with its own message; once it has to end, there are none."""
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
        lower_thread_priority()  # display and capture need little, but at once
        state, resets = DreamState(), self._controls.resets
        options = replace(self._models.current.options, on_step=self._count_step)
        while (captured := self._for_dream.take()) is not None and not self._stop.is_set():
            image = captured.frame.image
            dreamer, request = self._models.dreamer_for(
                self._automation.dream_settings_at(captured.frame.pts_seconds), self._controls
            )
            options = replace(options, field_height=self._resolution.field_height,
                              cycle_octaves=self._resolution.cycle_octaves)
            if options.field_height != self._target_height:
                self._target_height, self._since_seconds = options.field_height, time.perf_counter()
            if resets != self._controls.resets:
                state, resets = replace(state, residual=None), self._controls.resets
            height, width = options.field_size(*image.shape[:2])
            state = resize_state(state, height, width)
            with self._turn(), self._thread_tuner.applied():
                begin = time.perf_counter()
                try:
                    references = self._references.read(request.dream)
                    octaves = self._fit_octaves(dreamer, request, height, width)
                    warmup_steps = self._resolution.warmup_steps(request.dream.warmup_steps, octaves)
                    settings = replace(request.dream, warmup_steps=warmup_steps, octaves=octaves)
                    state = dreamer.advance(state, image, settings, references, options=options)
                except (UsageError, SourceError) as error:
                    self._recover_from_small_field(error, request, height)
                    continue
            self._last_good, self._complaint = request, ""
            if self._refused and self._refused != content_key(request):
                self._refused = ()
                self._resolution.reset_minimum()
            if state.residual is not None:
                self._published = compositor.prepare_residual(state.residual, image, references)
            self._dreams += 1
            self._fields[f"{width}x{height}{'' if options.cycle_octaves else ' all octaves'}"] += 1
            took = time.perf_counter() - begin
            if not self._thread_tuner.probing:
                self._resolution.observe(took, self._dreams, octaves, height)
            self._thread_tuner.observe(took, height, octaves)

    def _fit_octaves(self, dreamer: Dreamer, request: DreamRequest, height: int, width: int) -> int:
        """How many octaves to dream: a small field leaves out the coarsest ones, which are too small for the layers."""
        octaves = max(1, fitting_octaves(dreamer.model, request.dream, (height, width)))
        if octaves != self._octaves and octaves < request.dream.octaves:
            log.info("%d of %d octaves fit a field of %dx%d; the others are left out", octaves, request.dream.octaves,
                     width, height)
        self._octaves = octaves
        return octaves

    def _recover_from_small_field(self, error: UsageError | SourceError, request: DreamRequest, lines: int) -> None:
        """What is wanted cannot be dreamed. A show that has begun does not end by it.

        If the field is too small for a layer, a larger one is taken. Where a picture has fewer lines than are wanted,
        its source may be about to send more; a still larger field would not help. In all other cases what was dreamed
        before goes on, or if that is the same, the picture without a new dream.
        """
        if isinstance(error, FieldTooSmall):
            if lines < self._target_height:
                if time.perf_counter() < self._since_seconds + RESIZE_GRACE_SECONDS:
                    return
            elif self._resolution.reject_current():
                self._refused = content_key(request)
                return
        if self._last_good is None:
            raise error
        if self._complaint != str(error):
            self._complaint = str(error)
            log.warning("%s; it goes on as before", error)
        self._controls.revert_to(self._last_good)

    def _count_step(self, done: int) -> None:
        self._steps += 1

    def _display(self, until: float) -> None:
        last = None
        while not self._stop.is_set() and (now := time.perf_counter()) < until:
            captured = self._for_display.take(min(POLL_SECONDS, until - now))
            if captured is None:
                if self._for_display.closed:
                    return
                continue
            frame = captured.frame
            with self._stats.stage("display"):
                shown = self._compose(
                    self._published, frame.image, self._automation.display_settings_at(frame.pts_seconds)
                )
            with self._stats.stage("sink"):
                self._sink.write(shown, frame)
            now = time.perf_counter()
            self._shown += 1
            self._latencies.append(now - captured.at_seconds)
            if last is not None:
                self._gaps.append(now - last)
                self._longest_gap = max(self._longest_gap, now - last)
            last = now

    def _report(self, seconds: float, cpu_seconds: float) -> LiveReport:
        options = DreamOptions(self._target_height or self._resolution.field_height, stats=self._stats)
        size, gaps = (self._source.height, self._source.width), list(self._gaps)
        return LiveReport(
            captured=self._captured, frames=self._shown, dropped=max(0, self._captured - self._shown),
            dreams=self._dreams, steps=self._steps, seconds=round(seconds, 3),
            latency_ms={name: round(1e3 * percentile(self._latencies, part), 2)
                        for name, part in (("p50", 0.5), ("p95", 0.95))},
            longest_gap_ms=round(1e3 * self._longest_gap, 2),
            jitter_ms=round(1e3 * (percentile(gaps, 0.95) - percentile(gaps, 0.5)), 2),
            cpu_share=round(cpu_seconds / max(seconds, 1e-3), 3), fields=dict(self._fields),
            warnings=self._source.warnings + self._sink.warnings,
            **describe_run(self._models.current, options, self._controls.current(), size))


def resize_state(state: DreamState, height: int, width: int) -> DreamState:
    """The same dream on a field of another size, so that a change of size is no new beginning."""
    if state.residual is None or state.grey is None or state.grey.shape == (height, width):
        return state
    residual: warp.Plane = cv2().resize(state.residual, (width, height), interpolation=cv2().INTER_LINEAR)
    return replace(state, residual=residual, grey=downscale_area(state.grey, height, width))
