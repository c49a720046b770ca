"""Live on a device that dreams whole frames: how a run ends, devices that are too slow, what is left behind."""
from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from support.alive import tracked
from support.device_dreams import SETTINGS, Run, frames, marked, slow
from support.live_runs import workers
from support.waiting import until

from streamdream.backends import Backend
from streamdream.dream.device_dreamer import PendingDream
from streamdream.dream.dreamer import Dreamer
from streamdream.dream.reference_images import References
from streamdream.errors import UsageError
from streamdream.live.captured import Captured
from streamdream.live.dreams_in_flight import DreamsInFlight, Submitted
from streamdream.live.frame_pace import PATIENCE_SECONDS, RETRY_SECONDS, FramePace
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media.sources.live import timestamped_frame
from streamdream.system import process_tuning
from streamdream.system.stats import rss_mb

pytestmark = pytest.mark.usefixtures("one_thread", "no_thread_is_left", "stalls")


# --- ends -------------------------------------------------------------------------------------------------------------

def test_an_error_of_the_device_ends_the_run(eager: Backend) -> None:
    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    run = Run(eager, frames(100))
    run.device.before_result = fails
    with pytest.raises(RuntimeError, match="illegal memory"):
        run.live.run()
    assert workers() == []


def test_settings_that_never_worked_are_an_error(eager: Backend) -> None:
    run = Run(eager, frames(100), replace(SETTINGS, layers="mixed99"))
    with pytest.raises(UsageError, match="mixed99"):
        run.live.run()


def test_a_run_stops_while_dreams_are_in_flight(eager: Backend) -> None:
    """Whoever uses the device next does not wait for them forever."""
    run = Run(eager, iter([]), waits=False)
    uses: list[bool] = []

    class Use:
        def extend(self) -> Callable[[], float]:
            uses.append(False)

            def end() -> float:
                uses.append(True)
                return 0.001

            return end

    run.live._worker._device_slot = lambda: nullcontext(Use())

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        run.gate.shut()
        for _ in range(3):
            yield bool
            until(lambda: run.live._worker.frames._item is None or run.device.in_flight == 2)
        run.live.stop()
        run.gate.open()

    run.source._script = script()
    report = run.live.run()
    assert report.dreams <= 3 and uses.count(True) == uses.count(False) == 3 and run.device.in_flight == 0


def test_a_dream_that_is_submitted_at_the_end_gives_the_device_back() -> None:
    """Whether it can be fetched or not."""
    fetched: tuple[Any, ...] = (bytes, partial(next, iter([])))
    for result in fetched:
        in_flight, ended = DreamsInFlight(lambda captured: None), list[float]()

        def end_use(ended: list[float] = ended) -> float:
            ended.append(1.0)
            return 1.0

        in_flight.close()
        in_flight.run()
        in_flight.begin()
        captured = Captured(timestamped_frame(marked(0), 0.0), 1, 0.0)
        in_flight.put(Submitted(captured, PendingDream(result, result), References(), end_use, "64", 64, 1))
        assert ended == [1.0]


def test_the_last_frame_of_a_source_is_shown_with_its_dream(eager: Backend) -> None:
    run = Run(eager, iter([]), waits=False)
    run.device.before_result = slow(0.02)

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        yield from frames(3)

    run.source._script = script()
    run.live.run()
    assert run.sink.numbers[-1] == 3 and run.sink.images[-1] is run.device.dreams[-1]


# --- devices that are too slow ----------------------------------------------------------------------------------------

def test_the_field_is_made_smaller_until_every_frame_is_dreamed(eager: Backend) -> None:
    """What takes 1 s at 64 lines, far above the interval of the frames."""
    resolution = ResolutionController(64, 12, heights=[32, 48])
    resolution.require(30.0)
    resolution.start_from_largest()
    assert resolution.field_height == 64
    for number in range(1, 200):
        resolution.observe((resolution.field_height / 64) ** 2, number)
    assert resolution.field_height == 32 and resolution.is_too_slow


@pytest.mark.parametrize("drop_frames", [False, True])
def test_a_device_that_is_too_slow_shows_its_dreams_on_all_frames_or_drops_some(
        eager: Backend, drop_frames: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(eager, iter([]), waits=False, drop_frames=drop_frames)
    monkeypatch.setattr("streamdream.live.frame_pace.PATIENCE_SECONDS", 0.0)
    run.device.before_result = slow(0.05)
    pause = threading.Event()

    def script() -> Iterator[Callable[[], object]]:
        for _ in range(90):
            yield bool
            pause.wait(1 / 60)
            if not drop_frames and run.device.residuals > 3:
                break

    run.source._script = script()
    run.live.run()
    if drop_frames:
        assert run.device.residuals == 0 and len(run.sink.images) < 60
    else:
        assert run.device.residuals > 3
        assert run.sink.numbers == sorted(set(run.sink.numbers))


def test_a_device_that_was_too_slow_is_tried_again() -> None:
    now = [100.0]
    pace = FramePace(30.0, clock=lambda: now[0])
    for number in range(200):
        pace.on_frame(number / 60)
    assert 58 < pace.rate < 61 and pace.keeps_up
    for number in range(200):
        pace.on_frame(100 + number / 10)
    assert pace.rate == 30.0  # fewer frames than the source claims may be the device's own fault
    for times in (1, 2, 4):
        assert not pace.give_up() and pace.keeps_up  # not at once
        now[0] += PATIENCE_SECONDS
        assert pace.give_up() and not pace.keeps_up
        now[0] += times * RETRY_SECONDS - 0.1
        assert not pace.keeps_up
        now[0] += 0.2
        assert pace.keeps_up
    assert not FramePace(30.0, must_keep_up=True).give_up()


def test_a_field_of_the_lines_of_the_source_is_reached(eager: Backend) -> None:
    for lines in (720, 1080, 2160):
        resolution = ResolutionController(lines, 12)
        for number in range(1, 1000):
            resolution.observe(1e-4, number)
        assert resolution.field_height == lines and not resolution.cycle_octaves
        assert ResolutionController(lines, 12, fixed=True).field_height == lines




# --- what is left behind ----------------------------------------------------------------------------------------------

def test_a_run_on_a_device_is_freed_without_garbage_collection(eager: Backend) -> None:
    """So its pictures, and what the device computes, leave memory at once."""
    gc.collect()
    gc.disable()
    try:
        run = Run(eager, frames(4))
        gone = weakref.ref(run.live)
        run.live.run()
        run.source._ready = run.live = None  # type: ignore[assignment]
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.soak
def test_two_hundred_runs_on_a_device_leave_nothing_behind(eager: Backend) -> None:
    """Some are stopped with dreams in flight; two sizes take turns."""
    def run_once(number: int) -> None:
        resolution = ResolutionController(64 if number % 2 else 48, 12, fixed=True)
        run = Run(eager, iter([]), resolution=resolution, waits=False)

        def script() -> Iterator[Callable[[], object]]:
            yield from frames(3)
            if number % 3:
                until(lambda: run.device.images)
                run.live.stop()
            yield from frames(2)

        run.source._script = script()
        run.live.run()

    process_tuning.freeze_gc()
    with tracked(Live, Dreamer) as alive:
        for number in range(40):
            run_once(number)
        gc.collect()
        threads, size = threading.active_count(), rss_mb()
        for number in range(200):
            run_once(number)
        gc.collect()
        assert threading.active_count() <= threads and alive() == [] and rss_mb() - size < 10
