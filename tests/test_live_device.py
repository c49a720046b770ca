"""Live on a device that dreams whole frames: each frame is shown with its own dream, whatever happens meanwhile.

The device is the processor here, or a stand-in that blocks where the test says so.
"""
from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.device_dreams import MARK, SETTINGS, Gate, Run, frames, is_longer, left_of
from support.waiting import until

from streamdream.backends import Backend
from streamdream.errors import UsageError
from streamdream.live.dreams_in_flight import MAX_IN_FLIGHT
from streamdream.live.resolution import ResolutionController

pytestmark = pytest.mark.usefixtures("one_thread", "no_thread_is_left", "stalls")


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


def test_frames_that_cannot_be_dreamed_take_no_room_in_flight(eager: Backend) -> None:
    run = Run(eager, iter([]), waits=False)
    refused: list[int] = []

    def refuse() -> None:
        refused.append(len(run.device.images))
        raise UsageError("not this one")

    def script() -> Iterator[Callable[[], object]]:
        yield bool
        until(lambda: run.device.dreams)
        run.device.before_submit = refuse
        for count in range(MAX_IN_FLIGHT + 1):
            yield bool
            until(partial(is_longer, refused, count))
        run.device.before_submit = lambda: None
        yield bool
        until(lambda: len(run.device.dreams) == 2)

    run.source._script = script()
    assert run.live.run().dreams == 2


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
