"""How a live run ends: its source, its dream or its sink fails, somebody tells it to, its time is over."""
from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.alive import tracked
from support.live_runs import SIZE, Ends, Slow, broken, live, workers

from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import Closed, SinkError, SourceError
from streamdream.live.pipeline import Live
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.system import process_tuning
from streamdream.system.stats import rss_mb

pytestmark = pytest.mark.alone


def test_an_error_of_the_source_ends_the_run_with_its_own_words(eager: Backend) -> None:
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


def test_a_closed_window_is_an_end_and_no_error(eager: Backend) -> None:
    report = live(Ends(10_000), ClosedAfter(20), eager).run()
    assert report.frames == 19 and workers() == []


class Stalls(LiveSource):
    """Its fifth frame comes ``seconds`` late; the ones after it are of another size."""

    def __init__(self, seconds: float) -> None:
        super().__init__("stalls")
        self.width, self.height, self.rate = *SIZE, Fraction(30)
        self._seconds, self.over = seconds, threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for number in range(35):
            self.over.wait(self._seconds if number == 5 else 1 / 30)
            shape = (96, 160) if number < 5 else (120, 100) if number < 20 else (64, 200)
            yield timestamped_frame(np.full((*shape, 3), 7 * number, np.uint8), number / 30)

    def close(self) -> None:
        self.over.set()


def test_a_source_that_stalls_and_comes_back_in_another_size_is_shown_at_once(eager: Backend) -> None:
    sink = Slow()
    sink.write = lambda image, frame: sink.kept.append(image)  # type: ignore
    report = live(Stalls(2.0), sink, eager).run()
    assert 1900 < report.longest_gap_ms < 2600 and report.frames >= 25
    assert [shape for shape, _ in itertools.groupby(image.shape[:2] for image in sink.kept)] == [
        (96, 160), (120, 100), (64, 200)]


def test_a_live_run_ends_at_its_time_though_no_frame_comes(eager: Backend) -> None:
    with Stalls(60.0) as source:
        begin = time.monotonic()
        threading.Timer(2.0, source.close).start()
        report = live(source, NullSink(), eager).run(1.0)
        assert time.monotonic() - begin < 4 and 3 <= report.frames <= 5
    assert workers() == []


def test_a_live_run_stops_when_told_from_any_thread(eager: Backend) -> None:
    run = live(Ends(10_000), NullSink(), eager)
    threading.Timer(0.5, run.stop).start()
    begin = time.monotonic()
    run.run()
    assert time.monotonic() - begin < 5 and workers() == []


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
