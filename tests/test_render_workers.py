"""Renders by several processes: split at scene cuts they give the same frames, in long shots frames that fade over."""
from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import ENVIRONMENT, fails, here, preserved_process
from support.planned_renders import Frames, frames_of, make_shots
from support.waiting import until

from streamdream import cli
from streamdream.render import seams
from streamdream.render.plan import STATE_CUT, STATE_NONE, STATE_WARM_UP, Chunk, DamagedPlan, RenderPlan, warm_up_file
from streamdream.render.scene_scan import Scan
from streamdream.render.work_folder import PLAN_FILE, TIMES_FILE, WorkFolder

CHEAP = ("--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2", "-c:v", "ffv1", "--chunk-frames", "8")
SHOT_FRAMES = (10, 13, 9)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shots(tmp_path_factory.mktemp("shots") / "shots.mkv", SHOT_FRAMES)


@pytest.fixture(scope="module")
def by_one(shots: Path) -> Frames:
    """The frames that one worker with one thread dreams."""
    output = shots.with_name("one.mkv")
    with preserved_process():
        assert cli.run(["render", str(shots), "-o", str(output), *CHEAP, "--threads", "1"]) == 0
    return frames_of(output)


def worker_processes(folder: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"streamdream.render.worker {folder}"], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def plan_in(folder: Path) -> tuple[Chunk, ...]:
    with suppress(FileNotFoundError):
        return RenderPlan.from_json((folder / PLAN_FILE).read_text()).chunks
    return ()


def test_two_workers_give_the_frames_of_one_also_when_one_of_them_is_killed(
        shots: Path, by_one: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    output, folder = tmp_path / "two.mkv", tmp_path / ".two.mkv.render"
    killed: list[int] = []
    start = subprocess.Popen

    def kill_the_first_worker(args: Any, **options: Any) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = start(args, **options)
        if "streamdream.render.worker" in args and not killed:
            killed.append(process.pid)
            threading.Timer(0.3, process.kill).start()  # it loads PyTorch, and has its orders
        return process

    monkeypatch.setattr(subprocess, "Popen", kill_the_first_worker)
    result = here(capsys, "render", shots, "-o", output, *CHEAP, "--threads", "1", "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert "32 frames in 3 shots" in result.stderr and killed
    assert "worker 0 ended" in result.stderr and "another one replaces it" in result.stderr
    assert frames_of(output) == by_one
    assert not folder.exists() and not worker_processes(folder)


def test_workers_end_with_their_parent_and_one_process_goes_on(
        shots: Path, by_one: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, folder = tmp_path / "two.mkv", tmp_path / ".two.mkv.render"
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "render", shots, "-o", output, *CHEAP, "--threads",
                                "1", "--workers", "2"], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    until(lambda: any(chunk.done for chunk in plan_in(folder)), 60)
    process.kill()
    process.wait()
    until(lambda: not worker_processes(folder), 20)
    assert not output.exists()
    result = here(capsys, "render", shots, "-o", output, *CHEAP)
    assert result.returncode == 0 and "resuming at" in result.stderr, result.stderr
    assert frames_of(output) == by_one


def test_a_number_of_workers_that_makes_no_sense_is_refused(shots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "render", shots, "-o", "out.mkv", "--workers", "0"), 2, "--workers")
    fails(here(capsys, "render", shots, "-o", "out.mkv", "--seams", "soft"), 2, "exact", "warm-up")


def scan(*shot_frames: int, chunk_frames: int = 50) -> Scan:
    chunks: list[Chunk] = []
    start = 0
    for frames in shot_frames:
        for first in range(start, start + frames, chunk_frames):
            state = STATE_NONE if not chunks else STATE_CUT if first == start else chunks[-1].state_file
            chunks.append(Chunk(len(chunks), first, first, [first, 0, "0", None], 1, state))
        start += frames
    return Scan(tuple(chunks), np.arange(start, dtype=np.int64))


def test_only_long_shots_are_split_and_every_part_has_room_for_its_warm_up() -> None:
    split = seams.split_long_shots(scan(60, 900, 40), 4)
    seam_chunks = [chunk for chunk in split if chunk.blend]
    assert len(seam_chunks) >= 2 and all(60 < chunk.first_frame < 960 for chunk in seam_chunks)
    assert [chunk.number for chunk in split] == list(range(len(split)))
    for chunk in seam_chunks:
        second = split[chunk.number + 1]
        assert second.state_before == STATE_WARM_UP and second.first_frame == chunk.first_frame + seams.FADE_FRAMES
        assert second.first_frame - seams.WARM_UP_FRAMES >= 60
        assert chunk.blend == warm_up_file(second.number)
        assert chunk.state_before == split[chunk.number - 1].state_file
    plan = RenderPlan({}, {}, (1, 25), 50, split, 1000)
    ranges = list(plan.missing_ranges())
    assert sum(map(len, ranges)) == len(split)
    assert all(len(chunks) == 1 for chunks in ranges if chunks[0].blend)


@pytest.mark.parametrize("lengths", [(100,), (30, 30, 30), (200, 200)])
def test_short_shots_are_not_split(lengths: tuple[int, ...]) -> None:
    whole = scan(*lengths)
    assert seams.split_long_shots(whole, 2) == whole.chunks


@pytest.mark.parametrize(("lengths", "slots", "parts"), [
    ((400,), 2, [2]), ((10_000,), 4, [4]), ((5000, 300, 300), 8, [7, 1, 1]), ((900, 60, 40), 4, [4, 1, 1]),
    ((800,), 16, [6]), ((300,) * 8, 8, [1] * 8), ((500, 100), 1, [1, 1])])
def test_a_long_shot_fills_the_slots_that_are_free(lengths: tuple[int, ...], slots: int, parts: list[int]) -> None:
    """Where its parts would not be shorter than their warm-up is worth."""
    assert seams.part_counts(lengths, slots) == parts
    chunks = seams.split_long_shots(scan(*lengths, chunk_frames=250), slots)
    assert sum(bool(chunk.blend) for chunk in chunks) == sum(parts) - len(parts)
    firsts = [chunk.first_frame for chunk in chunks]
    assert firsts == sorted(set(firsts)) and firsts[0] == 0


def test_parts_of_a_shot_take_the_same_time() -> None:
    """The first one has no warm-up."""
    first, second, third = seams.seam_frames(1000, 5000, 4)
    dreamed = [first - 1000, *(end - begin - seams.FADE_FRAMES + seams.WARM_UP_FRAMES
                               for begin, end in ((first, second), (second, third), (third, 5000)))]
    assert max(dreamed) - min(dreamed) <= 1 and sum(dreamed) + 3 * seams.FADE_FRAMES == 4000 + 3 * seams.WARM_UP_FRAMES


def test_a_mixture_of_two_dreams_is_as_strong_as_they_are() -> None:
    random = np.random.default_rng(1)
    first, second = (random.standard_normal((8, 8, 3)).astype(np.float32) for _ in range(2))

    def strength(residual: NDArray[np.float32]) -> float:
        return float(np.sqrt(np.mean(residual**2)))

    assert strength(seams.blend(first, second, 0.5)) == pytest.approx(strength(first), rel=0.1)
    assert np.allclose(seams.blend(first, second, 0.0), first) and np.allclose(seams.blend(first, second, 1.0), second)


@pytest.mark.soak
def test_a_long_shot_fades_over_at_its_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """Before the seam all frames are those of one worker, in it and after it they are not, and none is missing."""
    clip = "lavfi:testsrc2=size=96x64:rate=25:duration=8"
    arguments = (*CHEAP, "--threads", "1", "--chunk-frames", "25")
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    assert here(capsys, "render", clip, "-o", one, *arguments).returncode == 0
    result = here(capsys, "render", clip, "-o", two, *arguments, "--workers", "2", "--seams", "warm-up")
    assert result.returncode == 0 and "1 seams within shots" in result.stderr, result.stderr
    expected, frames = frames_of(one), frames_of(two)
    assert [pts for pts, _ in frames] == [pts for pts, _ in expected]
    equal = [a == b for a, b in zip(expected, frames, strict=True)]
    seam = equal.index(False)
    assert 75 <= seam <= 125 and all(equal[:seam]) and not any(equal[seam:])


def test_changed_times_of_frames_are_not_believed(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / ".a.mkv.render", "a.mkv", ".nut") as folder:
        folder.save_times(np.arange(9))
        folder.save(RenderPlan({}, {}, (1, 25), 8, frames=9, times_sha256=folder.times_digest()))
        assert folder.load() is not None
        times = folder.path / TIMES_FILE
        times.write_bytes(times.read_bytes()[:-1] + b"x")
        with pytest.raises(DamagedPlan):
            folder.load()


def test_a_seam_waits_for_both_parts(tmp_path: Path) -> None:
    split = seams.split_long_shots(scan(400), 2)
    seam = next(chunk for chunk in split if chunk.blend)
    before = replace(split[seam.number - 1], sha256="done")
    with WorkFolder(tmp_path / ".a.mkv.render", "a.mkv", ".nut") as folder:
        folder.plan = RenderPlan({}, {}, (1, 25), 50, split, 400)
        (folder.path / seam.blend).touch()
        assert not folder.is_ready(seam)
        folder.plan = folder.plan.with_chunk(before)
        assert folder.is_ready(seam)
        (folder.path / seam.blend).unlink()
        assert not folder.is_ready(seam)
