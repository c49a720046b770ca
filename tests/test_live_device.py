"""Live on a device that dreams whole frames: each frame is shown with its own dream, whatever happens meanwhile.

The device is the processor here, or a stand-in that blocks where the test says so.
"""
from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.alive import tracked
from support.device_dreams import MARK, Gate, RecordedDevice, device_dreamer, left_of, marked, slow
from support.live_runs import workers
from support.waiting import until

from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.device_dreamer import PendingDream
from streamdream.dream.dreamer import Dreamer
from streamdream.dream.reference_images import References
from streamdream.errors import UsageError
from streamdream.live.captured import Captured
from streamdream.live.dreams_in_flight import DreamsInFlight, Submitted
from streamdream.live.frame_pace import RETRY_SECONDS, FramePace
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.settings import DreamSettings
from streamdream.system import process_tuning
from streamdream.system.stats import rss_mb

pytestmark = pytest.mark.usefixtures("one_thread", "no_thread_is_left")
SETTINGS = DreamSettings(layers="conv2d_2", octaves=1, warmup_steps=0, jitter=4, cut=0.0)


@pytest.fixture(autouse=True)
def stalls(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """No dream is too slow to wait for, however busy this machine is, unless the test says so."""
    def after(seconds: float) -> None:
        monkeypatch.setattr("streamdream.live.dreams_in_flight.STALL_SECONDS", seconds)

    after(60.0)
    return after


class Moving(LiveSource):
    """A marker that moves 4 px a frame over a plain picture of 96x64. The next frame comes when ``ready`` says so;
    what ``script`` yields is called first.
    """

    def __init__(self, ready: Callable[[], object], script: Iterator[Callable[[], object]]) -> None:
        super().__init__("moving")
        self.width, self.height, self.rate = 96, 64, Fraction(30)
        self._ready, self._script, self.given = ready, script, 0
        self.picture = marked

    def __iter__(self) -> Iterator[Frame]:
        for event in self._script:
            event()
            yield timestamped_frame(self.picture(self.given), self.given / 30)
            self.given += 1
            self._ready()


def is_longer(items: list[Any], count: int) -> bool:
    return len(items) > count


class Shown(NullSink):
    """Keeps the frames that are shown and what is shown of them."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.images: list[NDArray[np.uint8]] = []

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.frames.append(frame)
        self.images.append(image)

    @property
    def numbers(self) -> list[int]:
        return [round(30 * frame.pts_seconds) for frame in self.frames]


class Run:
    """A live run on a device, whose source waits until each frame is shown."""

    def __init__(self, eager: Backend, script: Iterator[Callable[[], object]], settings: DreamSettings = SETTINGS,
                 resolution: ResolutionController | None = None, waits: bool = True, **more: Any) -> None:
        self.resolution = resolution or ResolutionController(64, 12, fixed=True)
        self.dreamer = device_dreamer(eager, self.resolution.field_height)
        self.device, self.sink, self.controls = RecordedDevice(self.dreamer), Shown(), Controls(settings)
        self.source = Moving(self._shown if waits else lambda: None, script)
        self.live = Live(self.source, self.sink, self.dreamer, self.resolution, self.controls,
                         **{"drop_frames": True, **more})
        self.gate = Gate()
        self.device.before_result = self.gate

    def _shown(self) -> None:
        until(lambda: (self.source.given in (number + 1 for number in self.sink.numbers[-1:])
                       and self.live._worker.in_flight.count == self.source.given) or self.live._stop.is_set())


def frames(count: int) -> Iterator[Callable[[], object]]:
    return itertools.repeat(bool, count)


# --- what is shown ----------------------------------------------------------------------------------------------------

def test_each_frame_is_shown_with_its_own_dream(eager: Backend) -> None:
    run = Run(eager, frames(16))
    report = run.live.run()
    assert report.frames == report.captured == report.dreams == 16 and run.sink.numbers == list(range(16))
    shown = list(zip(run.sink.frames, run.sink.images, strict=True))[1:]  # the first is shown while its dream begins
    assert all(image is run.device.dream_of(frame.image) for frame, image in shown)
    assert run.device.residuals == 0  # nothing is downloaded but what is shown


def test_the_dream_lies_where_the_frame_has_what_is_dreamed(eager: Backend) -> None:
    """Most of what is added lies on the marker, wherever that is."""
    run, ratios = Run(eager, frames(18)), []
    run.live.run()
    for number, image, frame in list(zip(run.sink.numbers, run.sink.images, run.sink.frames, strict=True))[4:]:
        added = np.abs(image.astype(int) - frame.image).sum((0, 2)).astype(float)
        inside = range(left_of(number), left_of(number) + MARK)
        ratios.append(added[inside].mean() / np.delete(added, inside).mean())
    assert np.mean(ratios) > 1.3 and min(ratios) > 1


def test_at_most_two_dreams_are_in_flight_and_the_newest_frame_is_next(eager: Backend) -> None:
    """While the device is busy, 20 frames come; only the last of them is dreamed after."""
    run = Run(eager, iter([]), waits=False)

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        run.gate.shut()
        for _ in range(2):
            submitted = len(run.device.images)
            yield bool
            until(partial(is_longer, run.device.images, submitted))
        yield bool
        threading.Event().wait(0.05)  # time to take it, if there were room
        yield from frames(19)
        run.gate.open()
        until(lambda: len(run.device.dreams) == 4)

    run.source._script = script()
    report = run.live.run()
    assert run.device.most_in_flight == 2 and report.dreams == 4
    dreamed = [np.flatnonzero((image != 128).any((0, 2)))[0] for image in run.device.images]
    assert dreamed == [left_of(number) for number in (0, 1, 2, 22)]
    assert run.sink.numbers == sorted(set(run.sink.numbers)) and run.sink.numbers[-1] == 22


def test_frames_are_shown_while_a_dream_is_prepared(eager: Backend, stalls: Callable[[float], None]) -> None:
    """As where another look is compiled for seconds: they get the last residual, and none is shown twice."""
    stalls(0.1)
    run, compiling = Run(eager, iter([]), waits=False), Gate()

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        yield bool
        until(lambda: len(run.device.dreams) == 2)
        compiling.shut()
        run.device.before_submit = compiling
        for _ in range(4):
            shown = len(run.sink.images)
            yield bool
            until(lambda: compiling.waiting and run.live._worker.warps)
            yield bool
            until(partial(is_longer, run.sink.images, shown))
        compiling.open()
        until(lambda: len(run.device.dreams) > 2)
        yield bool
        until(lambda: len(run.device.dreams) > 3)

    run.source._script = script()
    run.live.run()
    assert run.device.residuals == 1  # of the last dream, once
    assert run.sink.numbers == sorted(set(run.sink.numbers)) and len(run.sink.numbers) >= 6
    for image, frame in list(zip(run.sink.images, run.sink.frames, strict=True))[2:]:
        assert np.abs(image.astype(int) - frame.image).mean() > 0.2


# --- changes ----------------------------------------------------------------------------------------------------------

def test_a_run_may_leave_the_device_and_return(eager: Backend) -> None:
    run = Run(eager, iter([]))
    advanced: list[bool] = []
    advance = run.dreamer.advance

    def recorded(state: Any, *args: Any, **more: Any) -> Any:
        advanced.append(state.is_empty)
        return advance(state, *args, **more)

    run.dreamer.advance = recorded  # type: ignore[method-assign]

    def script() -> Iterator[Callable[[], object]]:
        yield from frames(5)
        yield lambda: run.controls.change({"flow": "dis"})
        yield from frames(5)
        yield lambda: run.controls.change({"flow": "auto"})
        yield from frames(5)

    run.source._script, run.source._ready = script(), lambda: until(
        lambda: run.source.given in (number + 1 for number in run.sink.numbers[-1:])
        and run.source.given == run.live._worker.in_flight.count + len(advanced))
    report = run.live.run()
    assert report.frames == report.dreams == 17 and run.sink.numbers == list(range(17))
    assert run.device.began_empty == [True] + [False] * 10 and advanced == [False] * 6


def test_a_reset_begins_the_dream_without_a_residual(eager: Backend) -> None:
    run = Run(eager, iter([]))
    run.source._script = itertools.chain(frames(4), [run.controls.reset], frames(3))
    run.live.run()
    assert run.device.began_empty == [number in (0, 4) for number in range(8)]


@pytest.mark.parametrize(("fixed", "expected"), [(False, "mixed0"), (True, "conv2d_2")])
def test_a_layer_that_needs_a_larger_field_enlarges_it_or_is_taken_back(eager: Backend, fixed: bool, expected: str
                                                                        ) -> None:
    resolution = ResolutionController(16 if fixed else 64, 12, fixed, heights=[16], start_height=16)
    resolution.start_from_largest = lambda: None  # type: ignore[method-assign]
    run = Run(eager, iter([]), resolution=resolution, waits=False)

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        run.controls.change({"layers": "mixed0"})
        for _ in range(8):
            yield bool
            until(lambda: run.live._worker.frames._item is None)
        until(lambda: len(run.device.dreams) > 2)

    run.source._script = script()
    report = run.live.run()
    assert report.layers == expected and resolution.field_height == (16 if fixed else 64)


def test_settings_that_cannot_be_dreamed_are_reverted(eager: Backend, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(eager, iter([]), waits=False)

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        run.controls.change({"layers": "mixed99"})
        yield bool
        until(lambda: run.controls.current().layers == "conv2d_2")
        yield bool
        until(lambda: len(run.device.dreams) == 2)

    run.source._script = script()
    assert run.live.run().dreams == 2
    assert len([message for message in caplog.messages if "goes on as before" in message]) == 1


def test_pictures_too_small_for_a_layer_are_shown_without_a_new_dream(eager: Backend,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.live.dream_worker.RESIZE_GRACE_SECONDS", 0.0)
    run = Run(eager, iter([]), replace(SETTINGS, layers="mixed0"))
    small = np.zeros((8, 12, 3), np.uint8)
    run.source._script = itertools.chain(frames(4), [lambda: setattr(run.source, "picture", lambda number: small)],
                                         frames(6))
    run.source._ready = lambda: until(lambda: run.source.given in (number + 1 for number in run.sink.numbers[-1:]))
    report = run.live.run()
    assert report.frames == 11 and report.dreams >= 1 and run.sink.images[-1].shape == (8, 12, 3)


def test_the_sound_and_the_strength_act_on_the_dream_that_is_shown(eager: Backend) -> None:
    run = Run(eager, iter([]))
    run.source._script = itertools.chain(frames(4), [lambda: run.controls.change({"strength": 0.0})], frames(2))
    run.live.run()
    added = [np.abs(image.astype(int) - frame.image).mean()
             for image, frame in zip(run.sink.images, run.sink.frames, strict=True)]
    assert min(added[1:4]) > 0.2 and added[4:] == [0.0] * 3


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
def test_a_device_that_is_too_slow_shows_its_dreams_on_all_frames_or_drops_some(eager: Backend, drop_frames: bool
                                                                               ) -> None:
    run = Run(eager, iter([]), waits=False, drop_frames=drop_frames)
    run.device.before_result = slow(0.05)
    pause = threading.Event()

    def script() -> Iterator[Callable[[], object]]:
        for _ in range(60):
            yield bool
            pause.wait(1 / 60)
            if not drop_frames and run.device.residuals > 3:
                break

    run.source._script = script()
    run.live.run()
    if drop_frames:
        assert run.device.residuals == 0 and len(run.sink.images) < 40
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
