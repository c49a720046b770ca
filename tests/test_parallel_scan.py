"""Scene cuts found by several processes are those that one finds, with the same chunks, whatever the file is."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import planned_renders
from support.clips import Clip, irregular, make

from streamdream.dream.options import DreamOptions
from streamdream.render import parallel_scan
from streamdream.render.job import RenderJob, open_job_source
from streamdream.render.parallel_scan import OnePassNeeded, scan_in_parallel
from streamdream.render.plan import STATE_CUT
from streamdream.render.scan_worker import HostMatcher, RangeFrame
from streamdream.render.scene_scan import ChunkStart, Scan, scan_source

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
FRAMES = 240
"""Two processes share them at 120, three at 80 and 160."""
SHOTS = (30, 90, 25, 95)
BLACK = range(145, 205)
"""A pause in black, where no range can begin to compare."""
INTER = Clip(FRAMES, (96, 64), time_base=Fraction(1, 25), rate=Fraction(25),
             options={"crf": "12", "g": "24", "bf": "3", "x264-params": "open-gop=1"})
FELL_BACK = "one process looks for the scene cuts"


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(parallel_scan, "MIN_RANGE_FRAMES", 40)


def job(name: str | Path, output: Path, **flags: str) -> RenderJob:
    return planned_renders.job(name, output, frame_path="processor", **flags)


def film(shots: Sequence[int] = SHOTS) -> Iterator[NDArray[np.uint8]]:
    """Textures that move, one a shot."""
    random, number = np.random.default_rng(3), 0
    for frames in shots:
        texture = np.kron(random.integers(0, 255, (12, 60, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for shift in range(frames):
            picture = np.ascontiguousarray(texture[16:80, shift:shift + 96])
            yield np.full_like(picture, 4) if number in BLACK else picture
            number += 1


def both(the_job: RenderJob, processes: int) -> tuple[Scan, Scan]:
    """By one process, and by several."""
    matcher, seen = HostMatcher(DreamOptions(the_job.run.stream.field_height)), list[int]()
    one = scan_source(the_job, matcher, lambda frames: None)
    with open_job_source(the_job) as source, pytest.MonkeyPatch.context() as patched:
        patched.setattr(parallel_scan, "usable_cores", lambda: processes)
        several = scan_in_parallel(the_job, the_job.run.stream, source, lambda: matcher, seen.append)
    assert seen[-1] == len(one.source_pts)
    return one, several


def assert_same(one: Scan, several: Scan) -> None:
    assert several.chunks == one.chunks
    assert np.array_equal(several.source_pts, one.source_pts)


VARIABLE = replace(INTER, pts=irregular(FRAMES, 20, 90), time_base=Fraction(1, 1000))
FILMS: dict[str, tuple[str, Clip, int, dict[str, str]]] = {
    "a cut where a range begins": ("a.mp4", INTER, 2, {}),
    "a range begins in black": ("a.mkv", INTER, 3, {}),
    "a range is black from end to end": ("a.mp4", INTER, 6, {}),
    "variable frame rate": ("v.mp4", VARIABLE, 3, {}),
    "a part of the film": ("a.mp4", INTER, 2, {"start": "1.05", "duration": "5.5"}),
    "a transport stream": ("a.ts", INTER, 3, {}),
    "one keyframe": ("k.mp4", replace(INTER, options={"crf": "12", "g": "999", "sc_threshold": "0"}), 2, {}),
    "a play list": ("a.mp4", INTER, 2, {"playlist": "conv2d_1@2; conv2d_2@3"}),
}


@pytest.mark.parametrize("name", FILMS)
def test_several_processes_find_the_chunks_of_one(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, clip, processes, flags = FILMS[name]
    path = make(tmp_path / file, clip, film())
    one, several = both(job(path, tmp_path / "out.mkv", chunk_frames="20", **flags), processes)
    assert_same(one, several)
    assert sum(chunk.state_before == STATE_CUT for chunk in one.chunks) >= 2
    assert FELL_BACK not in caplog.text


def test_a_clock_that_begins_anew_is_left_to_one_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two recordings in one file: a time is that of two frames."""
    parts = [Path(make(tmp_path / f"{number}.ts", replace(INTER, frames=120), film((120,)))) for number in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_same(*both(job(joined, tmp_path / "out.mkv"), 2))
    assert "times of some frames are missing" in caplog.text


def test_a_damaged_film_has_the_chunks_that_one_process_finds(tmp_path: Path) -> None:
    path = Path(make(tmp_path / "a.ts", INTER, film()))
    data = bytearray(path.read_bytes())
    for place in (len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        data[place:place + 1000] = bytes(1000)
    path.write_bytes(data)
    one, several = both(job(path, tmp_path / "out.mkv"), 3)
    assert_same(one, several)
    assert len(one.source_pts) < FRAMES


def test_a_process_that_ends_early_is_replaced_by_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    start = parallel_scan._RangeProcess.__init__

    def end_the_second(self: parallel_scan._RangeProcess, number: int, *arguments: object) -> None:
        start(self, number, *arguments)  # type: ignore[arg-type]
        if number:
            self._process.kill()

    monkeypatch.setattr(parallel_scan._RangeProcess, "__init__", end_the_second)
    path = make(tmp_path / "a.mp4", INTER, film())
    assert_same(*both(job(path, tmp_path / "out.mkv"), 2))
    assert "a process has ended early" in caplog.text


@pytest.mark.parametrize("flags", [{"settings_track": "track.jsonl"}, {"record_settings": "track.jsonl"},
                                   {"playlist": "cut=0.2@3; cut=0.6@3"}])
def test_settings_that_change_what_is_a_cut_are_left_to_one_process(flags: dict[str, str], tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", replace(INTER, frames=8), film((8,)))
    assert not parallel_scan.can_be_split(job(path, tmp_path / "out.mkv", **flags))
    assert parallel_scan.can_be_split(job(path, tmp_path / "out.mkv"))


def test_what_is_no_file_with_pictures_of_its_own_is_left_to_one_process(tmp_path: Path) -> None:
    for name in ("lavfi:testsrc", "-", str(tmp_path), str(tmp_path / "%03d.png")):
        assert not parallel_scan.can_be_split(job(name, tmp_path / "out.mkv"))


def ranges(checksum: int = 7) -> list[list[RangeFrame]]:
    """Of four frames in two ranges; the first process has seen one frame of the second."""
    start = ChunkStart(None, 7)
    return [[RangeFrame(0, False, start), RangeFrame(1, False, None), RangeFrame(2, True, start)],
            [RangeFrame(2, None, ChunkStart(None, checksum)), RangeFrame(3, False, start)]]


def test_ranges_that_do_not_fit_are_noticed(tmp_path: Path) -> None:
    the_job, times = job("a.mp4", tmp_path / "out.mkv"), [10, 11, 12, 13]
    assert [chunk.first_frame for chunk in parallel_scan._join(the_job, times, ranges()).chunks] == [0, 2]
    with pytest.raises(OnePassNeeded, match="other pictures"):
        parallel_scan._join(the_job, times, ranges(checksum=8))
    with pytest.raises(OnePassNeeded, match="ended early"):
        parallel_scan._join(the_job, times, [ranges()[0][:2], ranges()[1]])
    with pytest.raises(OnePassNeeded, match="3 frames were found of 4"):
        parallel_scan._join(the_job, times, [ranges()[0], ranges()[1][:1]])
    with pytest.raises(OnePassNeeded, match="repaired"):
        parallel_scan._join(the_job, [10, 11, 13, 14], ranges())
