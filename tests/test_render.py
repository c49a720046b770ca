"""``streamdream render``: its output, its report, and what is left after an error."""
from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import Clip, make, only_sound, packets, truncated
from support.commands import ENVIRONMENT, fails, here, streamdream
from support.waiting import until

from streamdream.media.sources.video import open_source

SMALL = ("--field-height", "72", "--layers", "mixed0", "--warmup-steps", "1", "--backend", "eager")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second with sound, large enough for the default layers."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    make(path, Clip(frames=12, size=(96, 72), audio="aac", audio_seconds=0.5))
    return path


def times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


def test_a_real_clip_keeps_its_times_and_sound_and_gains_a_dream(world: Path, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "dream.mp4"
    result = here(capsys, "render", world, "-o", output, "-t", "1", "--field-height", "96", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["frames"] == 30 and report["dropped"] == 0 and report["warnings"] == []
    assert {"fps", "seconds", "backend", "precision", "device", "model", "layers", "field", "stages",
            "peak_rss_mb"} <= set(report)
    assert set(report["stages"]) == {"decode_wait", "match", "carry", "dream", "compose", "encode_wait", "finish"}
    assert times(output) == [moment for moment in times(world) if moment < 1]
    assert packets(str(output)) == [packet for packet in packets(str(world)) if packet[0] < 1]
    with open_source(str(world)) as before, open_source(str(output)) as after:
        changes = [float(np.abs(a.image.astype(int) - b.image).mean()) for a, b in zip(after, before, strict=False)]
    assert min(changes[1:]) > 2  # grey levels, on a mostly black picture: the dream is in every frame
    assert [path.name for path in tmp_path.iterdir()] == ["dream.mp4"]


def test_the_same_seed_renders_the_same_dream(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared without loss: x264's macroblock tree decides by what its memory held before, twice not the same way."""
    dreams = []
    for name in ("a.mkv", "b.mkv"):
        assert here(capsys, "render", clip, "-o", tmp_path / name, "-c:v", "ffv1", *SMALL).returncode == 0
        with av.open(str(tmp_path / name)) as file:
            dreams.append([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    np.testing.assert_array_equal(dreams[0], dreams[1])


def test_render_prints_plain_lines_to_a_log(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", clip, "-o", tmp_path / "a.mp4", *SMALL)
    assert result.stdout.startswith(f"{tmp_path / 'a.mp4'}: 12 frames in ")
    assert "\x1b" not in result.stdout + result.stderr and "\r" not in result.stderr


@pytest.mark.parametrize(("name", "code", "parts"), [
    ("missing.mp4", 2, ["no such file"]), ("folder", 2, ["is a folder"]), ("empty.mp4", 1, ["is empty"]),
    ("text.mp4", 1, ["damaged, or not a video"]), ("sound.m4a", 1, ["holds no video, only sound"]),
])
def test_an_input_that_is_no_video_is_one_error_line(name: str, code: int, parts: list[str], tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    inputs = tmp_path / "in"
    (inputs / "folder").mkdir(parents=True)
    (inputs / "empty.mp4").touch()
    (inputs / "text.mp4").write_text("Dear diary, this is not a video.\n" * 40)
    only_sound(inputs / "sound.m4a")
    (tmp_path / "out").mkdir()
    fails(here(capsys, "render", inputs / name, "-o", tmp_path / "out" / "a.mp4"), code, *parts)
    assert not any((tmp_path / "out").iterdir())


def test_a_truncated_input_is_rendered_up_to_the_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.mp4"
    make(path, Clip(frames=60, size=(96, 72), container_options={"movflags": "+faststart"}))
    truncated(str(path), 0.7)
    result = here(capsys, "render", path, "-o", tmp_path / "a.mp4", *SMALL, "--json")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: ") and "is damaged after" in result.stderr
    assert 5 < json.loads(result.stdout)["frames"] < 60


@pytest.mark.parametrize(("arguments", "part"), [
    (["--layers", "mixd3"], "did you mean mixed3"), (["--octaves", "9"], "too small for mixed0"),
    (["-c:v", "libx246"], "libx264"), (["-ss", "99"], "beyond the end"),
    (["-ss", "2", "-to", "1"], "nothing lies between"),
])
def test_render_leaves_nothing_after_a_mistake(arguments: list[str], part: str, clip: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "render", clip, "-o", tmp_path / "a.mp4", *SMALL, *arguments), 2, part)
    assert not any(tmp_path.iterdir())


def test_render_refuses_to_overwrite_without_y(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, mine = clip.read_bytes(), tmp_path / "mine.mp4"
    mine.write_bytes(b"mine")
    fails(here(capsys, "render", clip, "-o", mine), 2, "exists; -y overwrites it")
    fails(here(capsys, "render", clip, "-o", mine, "-n"), 2, "exists")
    fails(here(capsys, "render", clip, "-o", clip, "-y"), 2, "is the input itself")
    assert (mine.read_bytes(), clip.read_bytes()) == (b"mine", before)
    assert here(capsys, "render", clip, "-o", mine, "-y", *SMALL).returncode == 0
    assert len(times(mine)) == 12


@pytest.mark.soak
def test_a_killed_render_leaves_the_old_output(world: Path, tmp_path: Path) -> None:
    """SIGKILL cannot be caught: what was there before stays, and nothing stands under the name that is not whole."""
    output = tmp_path / "a.mp4"
    output.write_bytes(b"mine")
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "render", world, "-o", output, "-y", *SMALL],
                               stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    until(lambda: any(tmp_path.glob(".a.mp4.render/plan.json")), 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert output.read_bytes() == b"mine"


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_render_to_a_full_disk_keeps_what_was_there(world: Path, small_disk: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    (small_disk / "a.mp4").write_bytes(b"mine")
    result = here(capsys, "render", world, "-o", small_disk / "a.mp4", "-y", "-t", "4", "--encoder-preset", "ultrafast",
                  *SMALL)
    fails(result, 1, "no space left")
    assert [path.name for path in small_disk.iterdir()] == ["a.mp4"]
    assert (small_disk / "a.mp4").read_bytes() == b"mine"


def test_render_names_a_folder_that_cannot_be_written(clip: Path, small_disk: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    fails(here(capsys, "render", clip, "-o", small_disk / "a.mp4"), 1, "cannot be written")


def test_a_url_is_rendered_in_one_pass_which_is_said(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                     ) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=clip.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        result = here(capsys, "render", f"http://127.0.0.1:{server.server_port}/{clip.name}", "-o", tmp_path / "a.mp4",
                      *SMALL)
        server.shutdown()
        thread.join()
    assert result.returncode == 0 and "this render cannot be resumed" in result.stderr, result.stderr
    assert len(times(tmp_path / "a.mp4")) == 12 and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.soak
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Both runs fill every queue and cache; ten times the frames must not take more."""
    def peak(frames: int) -> float:
        result = streamdream("render", f"lavfi:testsrc2=size=320x240:rate=30:duration={frames / 30}", "-o", "null",
                             "--field-height", "64", "--layers", "conv2d_4", "--octaves", "1", "--steps", "1",
                             "--backend", "eager", "--json")
        report = json.loads(result.stdout)
        assert report["frames"] == frames
        return float(report["peak_rss_mb"])

    assert peak(400) < 1.05 * peak(40)


def test_a_terminal_shows_a_progress_bar(clip: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    main, end = pty.openpty()
    terminal = {"COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "render", clip, "-o", tmp_path / "a.mp4", *SMALL],
                               stderr=end, stdout=subprocess.PIPE, env=ENVIRONMENT | terminal)
    os.close(end)
    seen = b""
    try:
        while chunk := os.read(main, 4096):
            seen += chunk
    except OSError:  # how a terminal ends on Linux
        pass
    process.communicate()
    os.close(main)
    assert process.returncode == 0
    assert b"12/12" in seen and b"frames/s" in seen and b"left" in seen
