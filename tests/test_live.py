"""Live: the newest wins, nothing waits, and every end is a clean one."""
from __future__ import annotations

import gc
import itertools
import os
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
from support.live_runs import SETTINGS, Ends, Slow, images, live, workers

from streamdream import cli
from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.options import DreamOptions
from streamdream.errors import SinkError, SourceError
from streamdream.live.mailbox import Mailbox
from streamdream.live.pipeline import Live, resize_state
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.system import process_tuning
from streamdream.system.process_tuning import NICENESS

pytestmark = pytest.mark.alone

# --- the parts --------------------------------------------------------------------------------------------------------

def test_the_newest_replaces_what_nobody_took() -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(5):
        box.put(number)
    assert box.take() == 4 and box.replaced == 4
    box.put(7)
    box.close()
    assert box.take() == 7 and box.take() is None


def test_who_waits_is_woken_by_an_item_and_by_the_end() -> None:
    box: Mailbox[int] = Mailbox()
    got: list[int | None] = []
    reader = threading.Thread(target=lambda: got.extend([box.take(), box.take()]))
    reader.start()
    box.put(1)
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        box.close()
        time.sleep(0.01)
    reader.join(5)
    assert got == [1, None]


def test_a_dream_outlives_a_change_of_its_size() -> None:
    residual = np.zeros((40, 60, 3), np.float32)
    residual[:20] = 1
    state = resize_state(DreamState(residual, np.full((40, 60), 9, np.uint8), index=5), 80, 120)
    assert state.residual is not None and state.grey is not None and state.index == 5
    assert state.residual.shape == (80, 120, 3) and state.grey.shape == (80, 120)
    assert np.min(state.residual[:38]) == 1 and np.max(state.residual[42:]) == 0


def test_octaves_in_turn_all_get_theirs(eager: Backend) -> None:
    """Two octaves, one a frame: both sizes are stepped at, and the dream is as large as the field."""
    seen: list[tuple[int, ...]] = []
    options = DreamOptions(96, cycle_octaves=True, on_picture=lambda picture: seen.append(tuple(picture.shape[2:])))
    dreamer, state = Dreamer(get("inception_v3"), eager), DreamState()
    for image in images(4):
        state = dreamer.advance(state, image, replace(SETTINGS, cut=0.0, octaves=2), options=options)
        assert state.residual is not None and state.residual.shape == (96, 160, 3)
    assert seen == [(69, 112), (96, 160)] * 2


def test_numbers_in_frames_survive() -> None:
    for number in (0, 1, 12345, 65535):
        image = images(1)[0]
        write_number(image, number)
        assert read_number(image) == number


# --- a run ------------------------------------------------------------------------------------------------------------

def test_frames_are_shown_at_the_sources_pace_and_dreamed(eager: Backend) -> None:
    source, sink = Numbered(images(), 30, 2.0), Reader()
    report = live(source, sink, eager).run()
    numbers = [number for number, _ in sink.seen]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 30 and numbers[-1] == 59
    assert report.captured == 60 and report.frames == len(numbers) and report.dreams > 3
    assert 1.8 < report.seconds < 10 and workers() == []


def test_no_picture_waits_for_garbage_collection_of_all_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """``streamdream live`` excludes from it what is loaded, once, before its first picture."""
    class Counts(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            collected.append(len(gc.get_objects()))

    collected: list[int] = []
    monkeypatch.setattr(process_tuning, "_frozen", False)
    gc.unfreeze()
    everything = len(gc.get_objects())
    monkeypatch.setattr(NullSink, "write", Counts.write)
    assert cli.run(["live", "--source", "lavfi:testsrc=s=160x96:r=30:d=1", "--sink", "null", "--json",
                    "--backend", "eager"]) == 0
    assert collected and max(collected) < everything / 10


def test_a_run_is_gone_when_it_has_ended(eager: Backend) -> None:
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


def test_a_run_needs_no_garbage_collection_to_be_gone(eager: Backend) -> None:
    """So its pictures leave memory at once."""
    gc.collect()
    gc.disable()
    try:
        run = live(Ends(3), NullSink(), eager)
        dreamer = weakref.ref(run._models.current)
        gone = weakref.ref(run)
        run.run()
        del run
        assert gone() is None and dreamer() is None
    finally:
        gc.enable()


def test_a_slow_sink_gets_the_newest_and_holds_up_nobody(eager: Backend) -> None:
    sink = Slow()
    report = live(Numbered(images(), 30, 2.0), sink, eager).run()
    assert report.captured == 60 and 5 <= report.frames <= 12 and report.dropped == 60 - report.frames
    assert report.seconds < 4


def test_the_longest_gap_is_not_forgotten(eager: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames come after it."""
    class Stumbles(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            time.sleep(0.5 if next(written) == 5 else 0.0)

    written = itertools.count()
    monkeypatch.setattr("streamdream.live.pipeline.MAX_SAMPLES", 10)
    report = live(Numbered(images(), 30, 3.0), Stumbles(), eager).run()
    assert report.frames > 30 and report.longest_gap_ms > 400


def test_the_dream_is_in_the_picture(eager: Backend) -> None:
    still = images(1)
    sink = Slow()
    live(Numbered(still, 30, 2.5), sink, eager).run()
    dark = sink.kept[-1].astype(float)[16:] - still[0].astype(float)[16:]
    assert 2 < np.abs(dark).mean() < 80


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
def test_the_dream_stands_back_for_the_picture(eager: Backend) -> None:
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


def test_a_layer_too_deep_for_the_field_ends_no_show(eager: Backend) -> None:
    """The field grows for it where it may; where it may not, what was dreamed before goes on."""
    for fixed, expected in ((False, "mixed3"), (True, "conv2d_1")):
        resolution = ResolutionController(32 if fixed else 96, 12, fixed, heights=[32], start_height=32)
        controls = Controls(replace(SETTINGS, layers="conv2d_1", octaves=1))
        timer = threading.Timer(1.0, controls.change, ({"layers": "mixed3"},))
        timer.start()
        report = Live(Numbered(images(), 30, 2.5), NullSink(), Dreamer(get("inception_v3"), eager, 32), resolution,
                      controls).run()
        timer.join()
        assert report.layers == expected and report.dreams > 10
        assert resolution.field_height == (32 if fixed else 96)


class Asked(LiveSource):
    """A browser: it sends as many lines as were wanted a while ago, if its camera has so many."""

    def __init__(self, resolution: ResolutionController, highest: int, seconds: float) -> None:
        super().__init__("asked")
        self.height, self.width, self.rate = highest, 320, Fraction(30)
        self._resolution, self._highest, self._count = resolution, highest, int(30 * seconds)

    def __iter__(self) -> Iterator[Frame]:
        wanted = [self._resolution.field_height] * 8
        for number in range(self._count):
            time.sleep(1 / 30)
            wanted.append(self._resolution.field_height)
            lines = min(wanted[-8], self._highest)
            yield timestamped_frame(np.ascontiguousarray(np.resize(images(1)[0], (lines, 2 * lines, 3))), number / 30)


@pytest.mark.parametrize(("highest", "layers", "lines"), [(240, "mixed3", 96), (32, "conv2d_1", 32)])
def test_a_field_that_the_next_pictures_have_is_waited_for(eager: Backend, highest: int, layers: str,
                                                           lines: int) -> None:
    """And no larger one is asked for meanwhile; a camera that has no more lines goes on with what it dreamed, on the
    field that it had.
    """
    # nothing is fast enough: only what the layer needs is taken
    resolution = ResolutionController(240, 1e6, heights=[32, 96, 144, 208], start_height=32)
    controls = Controls(replace(SETTINGS, layers="conv2d_1", octaves=1))
    timer = threading.Timer(0.5, controls.change, ({"layers": "mixed3"},))
    timer.start()
    report = Live(Asked(resolution, highest, 3.0), NullSink(), Dreamer(get("inception_v3"), eager, 32), resolution,
                  controls).run()
    timer.join()
    assert report.layers == layers and resolution.field_height == lines
    assert not any(field.endswith(("x144", "x208")) for field in report.fields)


def test_settings_may_change_a_hundred_times_a_second(eager: Backend) -> None:
    """Layers, strength, octaves: without a stop and without an error."""
    choices = [{"layers": layers, "strength": strength, "octaves": octaves}
               for layers in ("mixed0", "conv2d_3", "mixed1:1,mixed0:-0.5") for strength in (0.5, 1.5)
               for octaves in (1, 2)]
    controls, over = Controls(SETTINGS), threading.Event()
    run = Live(
        Numbered(images(), 30, 2.0),
        NullSink(),
        Dreamer(get("inception_v3"), eager, 96),
        ResolutionController(96, 12),
        controls,
    )

    def change() -> None:
        for choice in itertools.cycle(choices):
            if over.wait(0.01):
                return
            controls.change(choice)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert run.run().frames >= 30
    finally:
        over.set()
        changer.join()


def test_a_frozen_picture_stands_still_and_goes_on_dreaming(eager: Backend) -> None:
    controls, sink = Controls(SETTINGS), Slow()
    threading.Timer(0.5, setattr, (controls, "frozen", True)).start()
    dreamer = Dreamer(get("inception_v3"), eager, 96)
    moving = [np.full((96, 160, 3), 60 + 8 * number, np.uint8) for number in range(16)]
    Live(Numbered(moving, 30, 3.0), sink, dreamer, ResolutionController(96, 12, fixed=True), controls).run()
    shown = [picture[40:].astype(float) for picture in sink.kept[-6:]]
    assert max(np.abs(a.mean() - b.mean()) for a, b in pairwise(shown)) < 3  # else it moves by 8 a frame
    assert max(np.abs(a - b).mean() for a, b in pairwise(shown)) > 0.2


def test_a_reset_begins_the_dream_anew(eager: Backend) -> None:
    controls, seen = Controls(SETTINGS), []
    dreamer = Dreamer(get("inception_v3"), eager, 96)
    advance = dreamer.advance
    dreamer.advance = lambda state, *args, **options: (  # type: ignore
        seen.append(state.residual is None) or advance(state, *args, **options))  # type: ignore
    threading.Timer(1.0, controls.reset).start()
    Live(Numbered(images(), 30, 3.0), NullSink(), dreamer, ResolutionController(96, 12, fixed=True), controls).run()
    assert sum(seen) == 2 and len(seen) > 10
