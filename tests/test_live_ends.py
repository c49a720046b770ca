"""How a live run ends: its source, its dream or its sink fails, it is told to, its time is over."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.alive import tracked
from support.live_runs import SETTINGS, SIZE, Ends, broken, live, workers
from support.stepped_live import SteppedSource, Steps
from support.waiting import until

from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import Closed, SinkError, SourceError
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.system import process_tuning
from streamdream.system.stats import rss_mb


def test_an_error_of_the_source_ends_the_run(eager: Backend) -> None:
    with pytest.raises(SourceError, match="the cable was pulled"):
        live(Ends(5, SourceError("the cable was pulled")), NullSink(), eager).run()
    assert workers() == []


def test_an_error_of_the_dream_ends_the_run(eager: Backend) -> None:
    with pytest.raises(Exception, match="unknown flow"):
        live(Ends(500), NullSink(), eager, broken()).run()
    assert workers() == []


class Raises(NullSink):
    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        raise SinkError("the disk is full")


def test_an_error_of_the_sink_ends_the_run(eager: Backend) -> None:
    with pytest.raises(SinkError, match="the disk is full"):
        live(Ends(10_000), Raises(), eager).run()
    assert workers() == []


class ClosedAfter(NullSink):
    def __init__(self, frames: int) -> None:
        super().__init__()
        self.left = frames

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.left -= 1
        if not self.left:
            raise Closed("the window was closed")


def test_a_closed_window_ends_the_run_without_an_error(eager: Backend) -> None:
    report = live(Ends(10_000), ClosedAfter(20), eager).run()
    assert report.frames == 19 and workers() == []


def test_a_source_that_changes_its_size_is_shown_at_once(eager: Backend) -> None:
    """After a stall, with the first frame of the new size."""
    shapes = [(96, 160)] * 5 + [(120, 100)] * 5 + [(64, 200)] * 5
    steps = Steps()

    def script() -> Iterator[NDArray[np.uint8]]:
        for number, shape in enumerate(shapes):
            time.sleep(0.3 if number == 5 else 0)
            yield np.full((*shape, 3), 15 * number, np.uint8)

    run = Live(SteppedSource(steps, script()), steps.sink, steps.record(Dreamer(get("inception_v3"), eager, 96)),
               ResolutionController(96, 12, fixed=True), Controls(SETTINGS))
    assert run.run().longest_gap_ms >= 300
    assert [image.shape[:2] for image in steps.sink.images] == shapes


class SilentSource(LiveSource):
    """Give five frames, and no more until it is closed."""

    def __init__(self) -> None:
        super().__init__("silent")
        self.width, self.height, self.rate = *SIZE, Fraction(30)
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for number in range(5):
            yield timestamped_frame(np.full((96, 160, 3), 7 * number, np.uint8), number / 30)
        self.closed.wait()

    def close(self) -> None:
        self.closed.set()


def test_a_live_run_ends_at_its_time_without_a_frame(eager: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.live.pipeline.JOIN_TIMEOUT_SECONDS", 0.1)
    with SilentSource() as source:
        report = live(source, NullSink(), eager).run(0.5)
        assert not source.closed.is_set() and 1 <= report.frames <= 5
    until(lambda: workers() == [])


def test_a_live_run_is_stopped_from_another_thread(eager: Backend) -> None:
    shown = threading.Event()

    class Tells(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            shown.set()

    def stop() -> None:
        shown.wait()
        run.stop()

    run = live(Ends(10_000), Tells(), eager)
    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    assert run.run().captured < 10_000 and workers() == []
    stopper.join()


@pytest.mark.soak
def test_a_thousand_runs_leave_nothing_behind(eager: Backend) -> None:
    """Neither a thread nor a file descriptor, nor an object, nor memory."""
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    process_tuning.freeze_gc()
    with tracked(Live, Dreamer) as alive:
        for _ in range(50):
            live(Ends(1), NullSink(), eager).run()
        before, threads, size = descriptors(), threading.active_count(), rss_mb()
        for _ in range(1000):
            live(Ends(1), NullSink(), eager).run()
        assert descriptors() <= before and threading.active_count() <= threads
        assert alive() == [] and rss_mb() - size < 10
