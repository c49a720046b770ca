"""A live run: the newest frame is shown, settings apply while it runs, and it leaves nothing behind."""
from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_bench.live import Numbered, Reader, read_number, write_number
from support.alive import tracked
from support.commands import ENVIRONMENT
from support.live_runs import SETTINGS, SIZE, Ends, images, live, workers
from support.stepped_live import TIMEOUT_SECONDS, SteppedSource, Steps

from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.options import DreamOptions
from streamdream.errors import SinkError, SourceError
from streamdream.live.mailbox import Mailbox
from streamdream.live.pipeline import Live
from streamdream.live.report import LiveReport
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.system import process_tuning
from streamdream.system.process_tuning import NICENESS


def run_script(eager: Backend, steps: Steps, script: Iterator[NDArray[np.uint8]], controls: Controls,
               resolution: ResolutionController | None = None, size: tuple[int, int] = SIZE) -> LiveReport:
    """Run with the pictures of ``script``, each after the last one was dreamed and shown."""
    resolution = resolution or ResolutionController(96, 12, fixed=True)
    dreamer = steps.record(Dreamer(get("inception_v3"), eager, resolution.field_height))
    return Live(SteppedSource(steps, script, size), steps.sink, dreamer, resolution, controls).run()


# --- the parts --------------------------------------------------------------------------------------------------------

def test_a_mailbox_holds_the_newest_item() -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(5):
        box.put(number)
    assert box.take() == 4 and box.replaced == 4
    box.put(7)
    box.close()
    assert box.take() == 7 and box.take() is None


def test_take_returns_at_an_item_and_at_the_end() -> None:
    box: Mailbox[int] = Mailbox()
    taken: list[int | None] = []
    reader = threading.Thread(target=lambda: taken.extend([box.take(), box.take()]))
    reader.start()
    box.put(1)
    box.close()
    reader.join(20)
    assert taken == [1, None]


def test_a_residual_is_scaled_when_the_field_changes() -> None:
    residual = np.zeros((40, 60, 3), np.float32)
    residual[:20] = 1
    state = DreamState(residual, np.full((40, 60), 9, np.uint8), index=5).resized(80, 120)
    assert state.residual is not None and state.grey is not None and state.index == 5
    assert state.residual.shape == (80, 120, 3) and state.grey.shape == (80, 120)
    assert np.min(state.residual[:38]) == 1 and np.max(state.residual[42:]) == 0


def test_cycled_octaves_take_turns(eager: Backend) -> None:
    """Two octaves, one a frame: both sizes are stepped at, and the dream is as large as the field."""
    seen: list[tuple[int, ...]] = []
    options = DreamOptions(96, cycle_octaves=True, on_picture=lambda picture: seen.append(tuple(picture.shape[2:])))
    dreamer, state = Dreamer(get("inception_v3"), eager), DreamState()
    for image in images(4):
        state = dreamer.advance(state, image, replace(SETTINGS, cut=0.0, octaves=2), options=options)
        assert state.residual is not None and state.residual.shape == (96, 160, 3)
    assert seen == [(69, 112), (96, 160)] * 2


def test_a_number_in_a_frame_is_read_back() -> None:
    for number in (0, 1, 12345, 65535):
        image = images(1)[0]
        write_number(image, number)
        assert read_number(image) == number


# --- a run ------------------------------------------------------------------------------------------------------------

def test_frames_are_shown_in_order_at_the_pace_of_the_source(eager: Backend) -> None:
    source, sink = Numbered(images(), 30, 1.0), Reader()
    report = live(source, sink, eager).run()
    numbers = [number for number, _ in sink.seen]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 10 and numbers[-1] == 29
    assert report.captured == 30 and report.frames == len(numbers) and report.dreams > 1
    assert report.seconds >= 29 / 30 and workers() == []


def test_loaded_modules_are_excluded_from_garbage_collection() -> None:
    """``streamdream live`` excludes from it what is loaded, once, before its first picture."""
    script = """
import gc
from streamdream import cli
from streamdream.media.sinks.base import NullSink
import streamdream.cli.live, streamdream.dream.dreamer, streamdream.live.pipeline
everything, collected = len(gc.get_objects()), []
NullSink.write = lambda sink, image, frame: collected.append(len(gc.get_objects()))
assert cli.run(["live", "--source", "lavfi:testsrc=s=160x96:r=30:d=0.3", "--sink", "null", "--json", "--backend",
                "eager"]) == 0
assert collected and max(collected) < everything / 4, (collected, everything)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr


def test_a_run_is_freed_after_any_end(eager: Backend) -> None:
    """However it ended, and though what was loaded before it is frozen; its report does not keep it either."""
    class Raises(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            raise SinkError("the disk is full")

    process_tuning.freeze_gc()
    reports = []
    with tracked(Live, Dreamer) as alive:
        for number in range(50):
            source = Ends(3, SourceError("the cable was pulled") if number % 10 == 5 else None)
            run = live(source, Raises() if number % 10 == 7 else NullSink(), eager)
            with suppress(SourceError, SinkError):
                reports.append(run.run())
        assert len(reports) == 40 and alive() == ["Dreamer", "Live"]  # those of ``run``
        del run, source
        assert alive() == []


def test_a_run_is_freed_without_garbage_collection(eager: Backend) -> None:
    """So its pictures leave memory at once."""
    gc.collect()
    gc.disable()
    try:
        run = live(Ends(3), NullSink(), eager)
        dreamer = weakref.ref(run._worker.current)
        gone = weakref.ref(run)
        run.run()
        del run
        assert gone() is None and dreamer() is None
    finally:
        gc.enable()


class BlockedSink(NullSink):
    """Its first picture takes until ``release``."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.started, self.release = threading.Event(), threading.Event()

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.numbers.append(read_number(image))
        self.started.set()
        assert self.release.wait(TIMEOUT_SECONDS)


class BlockingSource(LiveSource):
    """Give 30 frames while the sink is blocked by the first one."""

    def __init__(self, sink: BlockedSink) -> None:
        super().__init__("blocking")
        self.width, self.height, self.rate = *SIZE, Fraction(30)
        self._sink = sink

    def __iter__(self) -> Iterator[Frame]:
        for number in range(30):
            image = images(1)[0]
            write_number(image, number)
            yield timestamped_frame(image, number / 30)
            assert self._sink.started.wait(TIMEOUT_SECONDS)
        self._sink.release.set()


def test_a_blocked_sink_gets_the_newest_frame_and_blocks_no_capture(eager: Backend) -> None:
    sink = BlockedSink()
    report = live(BlockingSource(sink), sink, eager).run()
    assert sink.numbers == [0, 29] and (report.captured, report.frames, report.dropped) == (30, 2, 28)


def test_the_longest_gap_is_reported_whatever_comes_after(eager: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.live.pipeline.MAX_SAMPLES", 10)
    steps = Steps()

    def script() -> Iterator[NDArray[np.uint8]]:
        yield from images(3)
        time.sleep(0.2)
        yield from images(20)

    report = run_script(eager, steps, script(), Controls(SETTINGS))
    assert report.frames == 23 and report.longest_gap_ms >= 200


def test_the_dream_is_added_to_the_frame(eager: Backend) -> None:
    [image], steps = images(1), Steps()
    run_script(eager, steps, itertools.repeat(image, 10), Controls(SETTINGS))
    added = steps.sink.images[-1].astype(float) - image
    assert 2 < np.abs(added).mean() < 80


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
def test_the_dream_thread_has_a_lower_priority(eager: Backend) -> None:
    class Looks(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            here = os.getpriority(os.PRIO_PROCESS, 0)
            beside.update({thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) - here
                           for thread in workers()})

    beside: dict[str, int] = {}
    before = os.getpriority(os.PRIO_PROCESS, 0)
    live(Ends(after=30), Looks(), eager).run()
    assert beside == {"streamdream-capture": 0, "streamdream-dream": NICENESS} and NICENESS > 0
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.parametrize(("fixed", "expected"), [(False, "mixed3"), (True, "conv2d_1")])
def test_a_layer_that_needs_a_larger_field_enlarges_it_or_is_taken_back(eager: Backend, fixed: bool, expected: str
                                                                        ) -> None:
    resolution = ResolutionController(32 if fixed else 96, 12, fixed, heights=[32], start_height=32)
    controls = Controls(replace(SETTINGS, layers="conv2d_1", octaves=1))

    def script() -> Iterator[NDArray[np.uint8]]:
        yield from images(5)
        controls.change({"layers": "mixed3"})
        yield from images(10)

    report = run_script(eager, Steps(), script(), controls, resolution)
    assert report.layers == expected and report.dreams > 10
    assert resolution.field_height == (32 if fixed else 96)


@pytest.mark.parametrize(("highest", "layers", "lines"), [(240, "mixed3", 96), (32, "conv2d_1", 32)])
def test_a_larger_field_waits_for_larger_frames(eager: Backend, highest: int, layers: str, lines: int,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser sends as many lines as were asked for some frames ago, at most those of its camera. No still larger
    field is asked for meanwhile; a camera that has no more lines goes on with the settings and the field of before.
    """
    # 1e6 dreams a second are never reached: only the layer asks for a larger field.
    resolution = ResolutionController(240, 1e6, heights=[32, 96, 144, 208], start_height=32)
    controls, steps = Controls(replace(SETTINGS, layers="conv2d_1", octaves=1)), Steps()
    wanted = [resolution.field_height] * 8
    monkeypatch.setattr("streamdream.live.dream_worker.RESIZE_GRACE_SECONDS", 0.0 if highest == 32 else 60.0)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        while True:
            wanted.append(resolution.field_height)
            height = min(wanted[-8], highest)
            yield np.ascontiguousarray(np.resize(images(1)[0], (height, 2 * height, 3)))

    def script() -> Iterator[NDArray[np.uint8]]:
        yield from itertools.islice(pictures(), 5)
        controls.change({"layers": "mixed3"})
        yield from itertools.islice(pictures(), 30)

    report = run_script(eager, steps, script(), controls, resolution, (320, highest))
    assert report.layers == layers and resolution.field_height == lines
    assert not any(field.endswith(("x144", "x208")) for field in report.fields)


def test_settings_may_change_at_any_moment(eager: Backend) -> None:
    """Layers, strength, octaves: also while a frame is dreamed, without a stop and without an error."""
    choices = [{"layers": layers, "strength": strength, "octaves": octaves}
               for layers in ("mixed0", "conv2d_3", "mixed1:1,mixed0:-0.5") for strength in (0.5, 1.5)
               for octaves in (1, 2)]
    controls, over = Controls(SETTINGS), threading.Event()

    def change() -> None:
        for choice in itertools.cycle(choices):
            if over.wait(0.005):
                return
            controls.change(choice)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert run_script(eager, Steps(), itertools.islice(itertools.cycle(images()), 40), controls).frames == 40
    finally:
        over.set()
        changer.join()


def test_a_frozen_frame_is_held_and_dreamed_on(eager: Backend) -> None:
    controls, steps = Controls(SETTINGS), Steps()
    brighter = (np.full((96, 160, 3), 60 + 8 * number, np.uint8) for number in itertools.count())

    def script() -> Iterator[NDArray[np.uint8]]:
        yield from itertools.islice(brighter, 5)
        controls.frozen = True
        yield from itertools.islice(brighter, 12)

    run_script(eager, steps, script(), controls)
    shown = [image.astype(float) for image in steps.sink.images[-6:]]
    assert max(np.abs(a.mean() - b.mean()) for a, b in pairwise(shown)) < 3  # frames differ by 8
    assert max(np.abs(a - b).mean() for a, b in pairwise(shown)) > 0.2


def test_a_reset_begins_the_dream_without_a_residual(eager: Backend) -> None:
    controls, steps = Controls(SETTINGS), Steps()

    def script() -> Iterator[NDArray[np.uint8]]:
        yield from images(5)
        controls.reset()
        yield from images(5)

    run_script(eager, steps, script(), controls)
    assert steps.began_empty == [number in (0, 5) for number in range(10)]
