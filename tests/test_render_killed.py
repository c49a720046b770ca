"""Real ends of a process: SIGKILL, SIGINT, SIGTERM, full disks. The same command goes on."""
from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clips import Clip, make
from support.commands import ENVIRONMENT, PROGRAM_ENVIRONMENT, here
from support.planned_renders import SMALL, assert_same, job, moving, render
from support.sink_outputs import names
from support.waiting import until

FLAGS = [text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", value)]
FRAMES = 72


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return make(folder / "moving.mp4", Clip(FRAMES, size=(96, 72), audio="aac", audio_seconds=2.4), moving(FRAMES))


@pytest.fixture(scope="module")
def whole(source: str, folder: Path) -> str:
    render(job(source, folder / "whole.mkv", codec="ffv1"))
    return str(folder / "whole.mkv")


def start(source: str, output: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamdream", "render", source, "-o", str(output), *FLAGS, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(process: subprocess.Popen[str]) -> None:
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error


def chunks(output: Path) -> list[Path]:
    return list(output.parent.glob(f".{output.name}.render/*.safetensors"))


@pytest.mark.parametrize(("number", "code", "word"), [
    (signal.SIGKILL, -9, ""), (signal.SIGINT, 130, "interrupted"),
    pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.soak),
])
def test_a_signal_ends_a_render_that_goes_on(number: signal.Signals, code: int, word: str, source: str, whole: str,
                                             tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "a.mkv"
    process = start(source, output, "-c:v", "ffv1")
    until(lambda: len(chunks(output)) >= 2, 60)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code, error
    assert names(tmp_path) == [".a.mkv.render"]
    if word:
        assert f"error: {word}; " in error and f"frames of {output} are kept; the same command resumes" in error
    result = here(capsys, "render", source, "-o", output, *FLAGS, "-c:v", "ffv1")
    assert result.returncode == 0, result.stderr
    assert "resuming at " in result.stderr and "frames are there" in result.stderr
    assert_same(whole, output)
    assert names(tmp_path) == ["a.mkv"]


@pytest.mark.soak
@pytest.mark.parametrize(("name", "flags"), [
    ("a.mkv", ["-c:v", "ffv1"]), ("%04d.png", []), ("a.gif", []), ("a.mp4", []),
    ("b.mkv", ["-c:v", "ffv1", "--playlist", "conv2d_3@1; conv2d_4@1", "--sound", "source"]),
])
def test_kills_at_random_moments(name: str, flags: list[str], source: str, tmp_path: Path) -> None:
    """Four kills for each kind of output, ever later, within a chunk and between two."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = tmp_path / "whole" / name, tmp_path / "parts" / name
    finish(start(source, whole, *flags))
    moments = random.Random(name)
    for count in sorted(moments.sample(range(1, FRAMES // 8), 4)):
        process = start(source, parts, *flags)
        until(lambda: process.poll() is not None or len(chunks(parts)) >= count, 60)  # noqa: B023
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moments.uniform(0, 0.2))
        process.kill()
        process.communicate()
    process = start(source, parts, *flags)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0 or "exists; -y overwrites it" in error  # the last kill came after the end
    assert_same(whole, parts)
    assert [path for path in names(parts.parent) if path.startswith(".")] == []


KILLED_AT = {
    "before the output gets its name": "atomic_file.rename_all = lambda renames, overwrite: die() if any("
                                       "new.name[0] != '.' and 'render' not in new.parent.name for _, new in renames) "
                                       "else rename_all(renames, overwrite)",
    "after it": "WorkFolder.remove = lambda folder: die()",
    "while the folder is removed": "WorkFolder.remove = lambda folder: (next(folder.path.glob('*.nut')).unlink(), "
                                   "die())",
    "while chunks are joined": "VideoOutput.mux_last = lambda *arguments: die()",
}


@pytest.mark.soak
@pytest.mark.parametrize("place", KILLED_AT)
def test_a_kill_at_the_end_of_a_render(place: str, source: str, whole: str, tmp_path: Path) -> None:
    output = tmp_path / "a.mkv"
    script = ("import os, signal\nfrom streamdream import cli\nfrom streamdream.system import atomic_file\n"
              "from streamdream.render.work_folder import WorkFolder\n"
              "from streamdream.media.sinks.video_output import VideoOutput\nrename_all = atomic_file.rename_all\n"
              f"def die(): os.kill(os.getpid(), signal.SIGKILL)\n{KILLED_AT[place]}\n"
              f"cli.main({['render', source, '-o', str(output), *FLAGS, '-c:v', 'ffv1']!r})\n")
    killed = subprocess.run([sys.executable, "-c", script], env=PROGRAM_ENVIRONMENT, capture_output=True, text=True,
                            timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finish(start(source, output, "-c:v", "ffv1"))
    assert_same(whole, output)
    assert names(tmp_path) == ["a.mkv"]


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    (place := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no right to mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


@pytest.mark.parametrize("size", ["660k", pytest.param("180k", marks=pytest.mark.soak),
                                  pytest.param("420k", marks=pytest.mark.soak),
                                  pytest.param("1140k", marks=pytest.mark.soak)])
def test_a_full_disk_ends_a_render_that_goes_on(size: str, disk: Path, source: str, whole: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """In a chunk or in the join, which needs the space of all chunks once more."""
    remount(disk, f"size={size}")
    command = ["render", source, "-o", disk / "a.mkv", *FLAGS, "-c:v", "ffv1"]
    result = here(capsys, *command)
    assert result.returncode == 1
    assert f"error: no space left in {disk} for {disk / 'a.mkv'}" in result.stderr, result.stderr
    assert result.stderr.count("error:") == 1
    if size != "180k":  # which is refused before the render begins
        assert "frames of" in result.stderr and "the same command resumes" in result.stderr
        assert names(disk) == [".a.mkv.render"]
    remount(disk, "size=20m")
    result = here(capsys, *command, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["frames"] == FRAMES
    assert_same(whole, disk / "a.mkv")


@pytest.mark.parametrize("name", ["a.mkv", "%03d.png"])
def test_a_work_folder_on_another_disk(name: str, disk: Path, source: str, tmp_path: Path) -> None:
    remount(disk, "size=20m")
    whole, parts = (job(source, tmp_path / out, codec="ffv1", duration="1") for out in (f"w{name}", f"p{name}"))
    render(whole)
    assert render(parts, 20, work_folder=str(disk)) is None
    assert len(names(disk)) == 1
    report = render(parts, work_folder=str(disk))
    assert report is not None and report.resumed_frames == 16
    assert_same(whole.output, parts.output)
    assert names(disk) == []


def test_a_read_only_disk_is_named_at_once(disk: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    remount(disk, "ro")
    result = here(capsys, "render", source, "-o", disk / "a.mkv", *FLAGS)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {disk / 'a.mkv'} cannot be written: ") and "read-only" in result.stderr
