"""Videos from the standard input and from named pipes: read once, and said so."""
from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import Clip, make, number_of
from support.commands import ENVIRONMENT, fails, here

from streamdream.errors import SourceError, UsageError
from streamdream.media.sources.video import open_source

CHEAP = ["--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2"]


@pytest.fixture
def fifo(tmp_path: Path) -> Callable[[bytes], str]:
    """Makes a named pipe into which a thread writes."""

    def make_pipe(data: bytes) -> str:
        path = tmp_path / "pipe"
        os.mkfifo(path)

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):
                path.write_bytes(data)

        threading.Thread(target=write, daemon=True).start()
        return str(path)

    return make_pipe


def y4m(path: Path) -> str:
    with av.open(str(path), "w", format="yuv4mpegpipe") as output:
        stream = output.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        source = make(path.with_suffix(".mp4"), Clip(30))
        with av.open(source) as file:
            for number, picture in enumerate(file.decode(video=0)):
                picture.pts, picture.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(picture))
    return str(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.nut", "a.ts", "a.y4m", "a.avi"])
def test_every_container_that_needs_no_seeking_comes_through_a_pipe(tmp_path: Path, fifo: Callable[[bytes], str],
                                                                    name: str) -> None:
    path = y4m(tmp_path / name) if name == "a.y4m" else make(
        tmp_path / name, Clip(30, codec="ffv1" if name in ("a.nut", "a.avi") else "libx264"))
    pipe = fifo(Path(path).read_bytes())
    with open_source(pipe, start=0.2) as source:
        source.deliver_pictures(source.height, source.width)
        expected = 5 if name == "a.y4m" else 6
        assert [number_of(frame.image) for frame in source] == list(range(expected, 30))
    assert source.warnings == []


def test_an_mp4_whose_index_comes_last_is_named(tmp_path: Path, fifo: Callable[[bytes], str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3), dtype=np.uint8)
    path = make(tmp_path / "a.mp4", Clip(60, (128, 96)), list(noise))
    with pytest.raises(SourceError, match="has its index after its pictures, so it cannot come through a pipe"):
        open_source(fifo(Path(path).read_bytes()))


@pytest.mark.parametrize("data", [b"", b"just some text\n" * 300])
def test_a_pipe_without_a_video_is_one_line(fifo: Callable[[bytes], str], data: bytes) -> None:
    with pytest.raises(SourceError, match="is empty, damaged, or not a video"):
        open_source(fifo(data))


def test_a_video_is_rendered_from_the_standard_input(tmp_path: Path) -> None:
    """In one pass; its sound stays behind, with a word."""
    path = make(tmp_path / "a.mkv", Clip(20, audio="aac"))
    with Path(path).open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
        command = [sys.executable, "-m", "streamdream", "render", "-", "-o", str(tmp_path / "b.mp4"), *CHEAP]
        result = subprocess.run(command, stdin=cat.stdout, capture_output=True, text=True, env=ENVIRONMENT,
                                timeout=120)
    assert result.returncode == 0, result.stderr
    assert "is not a file: this render cannot be resumed" in result.stderr
    assert "the sound of the standard input is left out" in result.stderr
    with open_source(str(tmp_path / "b.mp4")) as source:
        assert len(list(source)) == 20


def test_a_terminal_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    before = os.dup(0)
    try:
        os.dup2(follower, 0)
        with pytest.raises(UsageError, match="the standard input is a terminal: send a video into it"):
            open_source("-")
    finally:
        os.dup2(before, 0)
        for number in (leader, follower, before):
            os.close(number)


@pytest.mark.parametrize("flags", [["--dry-run"], ["--preview", "a.png"]])
def test_a_pipe_is_not_looked_into_before_it_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                         flags: list[str]) -> None:
    fails(here(capsys, "render", "-", "-o", tmp_path / "b.mp4", *flags), 2, "a pipe is read once")
