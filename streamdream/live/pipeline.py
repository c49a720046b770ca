"""The live pipeline: workers, connected by mailboxes that hold only the newest item.

    capture ──newest frame──▶ dream ──newest residual──┐
       └──────newest frame──────────────────────────▶ display ──▶ sink

*capture* reads the source in real time. *dream* (dream_worker.py) takes the newest frame, dreams it and publishes the
residual together with the frame. *display* takes the newest frame, warps the newest residual to it and adds it at the
rate of the camera, however long a dream takes. A slow worker skips frames; there are no queues. Where a device dreams
every frame in time, display gets the dream of the frame itself (dreams_in_flight.py).
"""
from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.automation.automation import Automation
from streamdream.dream.options import DreamOptions
from streamdream.dream.report import describe_run
from streamdream.errors import Closed, UsageError
from streamdream.live import compositor
from streamdream.live.captured import Captured
from streamdream.live.dream_worker import DreamWorker
from streamdream.live.frame_pace import FramePace
from streamdream.live.mailbox import Mailbox
from streamdream.live.report import LiveReport
from streamdream.system.stats import percentile

if TYPE_CHECKING:
    from streamdream.automation.controls import Controls
    from streamdream.dream.dreamer import Dreamer
    from streamdream.live.dream_worker import DeviceSlot
    from streamdream.live.field_times import FieldTimesOfRun
    from streamdream.live.resolution import ResolutionController
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source
    from streamdream.settings import DreamSettings

MakeOutput = Callable[[compositor.PublishedResidual | None, NDArray[np.uint8], "DreamSettings"], NDArray[np.uint8]]
MAX_SAMPLES = 36_000
"""Latest frames whose latency is stored: ten minutes at 60 frames per second."""
POLL_SECONDS = 0.5
"""How often display checks the end of the run while no frame arrives."""
JOIN_TIMEOUT_SECONDS = 5.0
"""Time limit for each worker to stop."""


class Live:
    """One live run. It reads ``controls`` before every dream and frame, so all settings may change during the run.

    ``automation`` changes them over time; ``build`` makes the dreamer of another model. ``device_slot`` makes the
    context of a dream, in which runs that share a device wait for it. ``make_output`` makes the picture for the sink
    from the newest residual, or None, and a frame: by default the dream. With ``levels`` a dream on the
    device gives that to the sink which ``DreamOptions.levels`` says. ``field_times`` are kept for the next run. With
    ``drop_frames`` a device that is too slow for every frame leaves frames out; otherwise they get the dream of
    another, warped to them.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dreamer: Dreamer,
        resolution: ResolutionController,
        controls: Controls,
        device_slot: DeviceSlot = nullcontext,
        automation: Automation | None = None,
        build: Callable[[str], Dreamer] | None = None,
        make_output: MakeOutput = compositor.composite,
        levels: bool = False,
        field_times: FieldTimesOfRun | None = None,
        drop_frames: bool = False,
    ) -> None:
        self._source, self._sink, self._resolution = source, sink, resolution
        self._controls, self._make_output = controls, make_output
        self._automation, self._stats = automation or Automation(controls), dreamer.options.stats
        self._for_display: Mailbox[Captured] = Mailbox()
        self._pace = FramePace(float(source.rate), must_keep_up=drop_frames)
        self._worker = DreamWorker(dreamer, resolution, self._automation, self._pace, self._for_display.put,
                                   device_slot, build, field_times, levels)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._captured = self._shown = 0
        self._latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._gaps: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._longest_gap = 0.0

    def run(self, seconds: float = float("inf")) -> LiveReport:
        """Run until the source ends, ``seconds`` have passed or ``stop`` is called. Return the report.

        *display* runs in this thread. Raises what any worker raised. The caller closes source and sink.
        """
        started, cpu_started = time.perf_counter(), time.process_time()
        workers = [threading.Thread(target=self._run_worker, args=(work,), name=f"streamdream-{name}", daemon=True)
                   for name, work in (("capture", self._capture), ("dream", self._worker.run),
                                      ("finish", self._finish_dreams))]
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
            self._worker.close()
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, UsageError) and not self._worker.dreams:
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
        self._worker.frames.close()
        self._worker.in_flight.cancel()
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
            captured = Captured(self._automation.on_frame(frame), self._captured + 1, time.perf_counter())
            self._captured += 1
            self._pace.on_frame(captured.at_seconds)
            if self._worker.warps:
                self._for_display.put(captured)
            self._worker.frames.put(captured)
        if self._worker.warps:
            self._for_display.close()
        self._worker.frames.close()

    def _finish_dreams(self) -> None:
        self._worker.in_flight.run()
        self._for_display.close()

    def _display(self, deadline: float) -> None:
        last_shown_at, last_number = None, 0
        while not self._stop.is_set() and (now := time.perf_counter()) < deadline:
            captured = self._for_display.take(min(POLL_SECONDS, deadline - now))
            if captured is None:
                if self._for_display.closed:
                    return
                continue
            if captured.number <= last_number:
                continue  # a later one was shown while its dream was awaited
            frame, output, last_number = captured.frame, captured.shown, captured.number
            if output is None:
                with self._stats.stage("display"):
                    output = self._make_output(self._worker.published(), frame.image,
                                               self._automation.display_settings_at(frame.pts_seconds))
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
        options = DreamOptions(self._worker.target_height or self._resolution.field_height, stats=self._stats)
        size, gaps = (self._source.height, self._source.width), list(self._gaps)
        return LiveReport(
            captured=self._captured, frames=self._shown, dropped=max(0, self._captured - self._shown),
            dreams=self._worker.dreams, steps=self._worker.steps, seconds=round(seconds, 3),
            latency_ms={name: round(1e3 * percentile(self._latencies, fraction), 2)
                        for name, fraction in (("p50", 0.5), ("p95", 0.95))},
            longest_gap_ms=round(1e3 * self._longest_gap, 2),
            jitter_ms=round(1e3 * (percentile(gaps, 0.95) - percentile(gaps, 0.5)), 2),
            cpu_share=round(cpu_seconds / max(seconds, 1e-3), 3), fields=dict(self._worker.fields),
            warnings=self._source.warnings + self._sink.warnings, decoder=self._source.decoder,
            **describe_run(self._worker.current, options, self._controls.current(), size))
