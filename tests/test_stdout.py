"""``render -o -``: the video on the standard output, and nothing else there."""
from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from support.clips import Clip, make
from support.commands import ENVIRONMENT, fails, here
from support.picture_copies import same_samples

CHEAP = ["--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2", "--strength", "0"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("clip") / "in.mp4", Clip(6, audio="aac", audio_seconds=0.2))


@pytest.mark.parametrize(("container", "format", "kinds"), [
    ([], "nut", ["video", "audio"]), (["--container", "y4m"], "yuv4mpegpipe", ["video"]),
    (["--container", "mkv"], "matroska,webm", ["video", "audio"]),
])
def test_the_video_is_on_the_standard_output_alone(clip: str, container: list[str], format: str, kinds: list[str],
                                                   capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    result = here(capfdbinary, "render", clip, "-o", "-", *CHEAP, *container)
    assert result.returncode == 0, result.stderr
    assert b"6 frames in" in result.stderr
    with av.open(io.BytesIO(result.stdout), "r") as file:
        assert file.format.name == format and [stream.type for stream in file.streams] == kinds
        pictures = list(file.decode(video=0))
    with av.open(clip) as file:
        for picture, before in zip(pictures, file.decode(video=0), strict=True):
            assert same_samples(picture, before)


def test_a_reader_that_ends_is_one_line(clip: str) -> None:
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "render", clip, "-o", "-", *CHEAP],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(120) == 141
    assert errors.splitlines()[-1] == "error: the program that reads the standard output has ended", errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("arguments", "words"), [
    (["--json"], "--json and -o - would mix on stdout"),
    (["--progress", "pipe:1"], "--progress pipe:1 and -o - would mix"),
    (["--container", "mp4"], "unknown container for the standard output 'mp4'"),
    (["--preview", "a.png"], "-o - is for one video"),
])
def test_wrong_orders_for_the_standard_output(clip: str, capsys: pytest.CaptureFixture[str], arguments: list[str],
                                              words: str) -> None:
    fails(here(capsys, "render", clip, "-o", "-", *arguments), 2, words)


def test_no_video_goes_to_a_terminal(clip: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
                                     ) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    fails(here(capsys, "render", clip, "-o", "-", *CHEAP), 2, "the standard output, which is a terminal")


def test_only_render_writes_to_the_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "live", "--source", "lavfi:testsrc2", "--sink", "pipe:nut"), 2, "is for streamdream render")
