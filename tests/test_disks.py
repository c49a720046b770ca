"""Disks that refuse: full, read-only, forbidden or gone. What was there stays, and no output is half of one."""
from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from support.clips import Clip, make, marked
from support.commands import here
from support.live_runs import SIZE
from support.live_sinks import Camera, live_context, live_sink
from support.sink_outputs import NAMES, copy, names, noise, read

from streamdream.errors import SinkError
from streamdream.media.sinks.base import Sink
from streamdream.media.sinks.registry import open_sink, open_sinks
from streamdream.media.sources.live import timestamped_frame
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

NOBODY = 65534
pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a tiny disk."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(*options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no right to mount a disk")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["40k", "100k"])
def test_a_sink_on_a_full_disk_keeps_what_was_there(folder: Path, disk: Callable[..., Path], name: str,
                                                    size: str) -> None:
    """Wherever it happens: in a picture, in the trailer, or when an mp4 is written once more with its index first."""
    place = disk(f"size={size}")
    path = folder / "sixty.mp4"
    if not path.exists():
        make(path, Clip(60))
    (place / (name % 1 if "%" in name else name)).write_bytes(b"old")
    with open_source(str(path)) as source, pytest.raises(SinkError, match="no space left in") as caught:
        noise(source, open_sink(str(place / name), source, RenderSettings(crf=1), True))
    assert "\n" not in str(caught.value)
    assert names(place) == [name % 1 if "%" in name else name]
    assert (place / names(place)[0]).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "%d.png"])
@pytest.mark.parametrize("blocks", range(4, 40, 4))
def test_a_disk_that_is_full_at_any_moment_leaves_no_broken_file(disk: Callable[..., Path], clip: str, name: str,
                                                                 blocks: int) -> None:
    """Either it is whole, or it is not there and that is said."""
    place = disk(f"nr_blocks={blocks},nr_inodes=64")
    with open_source(clip) as source:
        try:
            noise(source, open_sink(str(place / name), source, RenderSettings(crf=20), True))
        except SinkError as error:
            assert "no space left" in str(error)
            assert names(place) == []
            return
    assert len(read(place / name)) == 20


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_on_a_read_only_disk_is_an_error(disk: Callable[..., Path], clip: str, name: str) -> None:
    place = disk("size=100k", "ro")
    with pytest.raises(SinkError, match=r"cannot be written .*read-only"):
        copy(clip, place / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_in_a_forbidden_folder_is_an_error(clip: str, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    place = Path("/dev/shm") / f"streamdream-test-{os.getpid()}"  # pytest's own folders are closed to nobody
    place.mkdir(mode=0o755)
    try:
        with open_source(clip) as source:
            os.seteuid(NOBODY)
            with pytest.raises(SinkError, match=r"cannot be written .*permission denied"):
                open_sink(str(place / name), source, RenderSettings())
    finally:
        os.seteuid(0)
        place.rmdir()


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_whose_folder_vanishes_is_an_error(tmp_path: Path, clip: str, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(SinkError, match="cannot be written: its folder is gone"), open_source(clip) as source, \
            open_sink(str(place / name), source, RenderSettings()) as sink:
        for number, frame in enumerate(source):
            if number == 10:
                place.rename(tmp_path / "elsewhere")
            sink.write(frame.image, frame)


# --- live recordings --------------------------------------------------------------------------------------------------

def record(sink: Sink, count: int) -> None:
    """Pictures that cannot be made small."""
    random = np.random.default_rng(0)
    for number in range(count):
        image = random.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        sink.write(image, timestamped_frame(image, number / 30))


def plays(path: Path) -> int:
    """Pictures in it."""
    container: Any
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("name", ["show.mp4", "show.mkv", "show.webm", "show.avi"])
def test_a_full_disk_keeps_what_was_recorded(disk: Callable[..., Path], name: str) -> None:
    """In a show with one sink the fault ends it; either way the recording so far was removed."""
    place = disk("size=400k")
    with pytest.raises(SinkError) as caught, live_sink(str(place / name), crf=1) as sink:
        record(sink, 150)
    stem, _, suffix = name.partition(".")
    assert names(place) == [f"{stem}.partial.{suffix}"] and plays(place / f"{stem}.partial.{suffix}") > 3
    assert re.fullmatch(rf"no space left in {place} for {place / name}; what was recorded, [0-9.: s]+, is in "
                        rf"{place / stem}.partial.{suffix}", str(caught.value))


@pytest.mark.parametrize("name", ["show.mp4", "show.mkv"])
@pytest.mark.parametrize("blocks", range(12, 60, 8))
def test_a_recording_on_a_disk_that_is_full_at_any_moment(disk: Callable[..., Path], name: str, blocks: int) -> None:
    """Also at its very end: it is whole, or what there is plays, or there is nothing; and the run's code tells."""
    place, context = disk(f"nr_blocks={blocks},nr_inodes=64"), live_context()
    with open_sinks([str(place / name), "null"], Camera(), RenderSettings(crf=20), False, context) as sink:
        record(sink, 12)
    if context.failures:
        assert list(context.failures) == [str(place / name)] and "no space left" in context.failures[str(place / name)]
        assert [path for path in names(place) if ".partial." not in path] == []
        assert all(plays(place / left) > 0 for left in names(place))
    else:
        assert names(place) == [name] and plays(place / name) == 12


def test_the_exit_code_and_the_report_name_a_failed_sink(disk: Callable[..., Path],
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    place = disk("size=300k")
    result = here(capsys, "live", "--source", "lavfi:testsrc2=size=320x180:rate=30", "--sink", place / "show.mp4",
                  "--sink", "null", "--seconds", "3", "--crf", "0", "--field-height", "96", "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert list(report["failed_sinks"]) == [str(place / "show.mp4")] and report["frames"] > 30
    assert "is in " + str(place / "show.partial.mp4") in report["failed_sinks"][str(place / "show.mp4")]
    assert plays(place / "show.partial.mp4") > 0


def test_an_hls_list_on_a_read_only_disk_is_an_error_at_once(disk: Callable[..., Path]) -> None:
    place = disk("size=100k", "ro")
    with pytest.raises(SinkError, match=r"x.m3u8 cannot be written \(read-only"):
        live_sink(str(place / "x.m3u8"))


def test_an_hls_list_that_cannot_be_written_says_so(disk: Callable[..., Path], caplog: pytest.LogCaptureFixture,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    """FFmpeg goes on without a word. The list from before stays, and the show goes on."""
    place, context = disk("size=300k"), live_context()
    out = place / "x.m3u8"
    with open_sinks([str(out), "null"], Camera(), RenderSettings(), False, context) as sink:
        for number in range(420):
            image = marked(number % 256, SIZE)
            sink.write(image, timestamped_frame(image, number / 30))
            time.sleep(0.003)
            if number == 200:
                before = out.read_text()
                (place / "other").write_bytes(bytes(1 << 20)[: 4096 * free_blocks(place)])
    assert before.startswith("#EXTM3U") and "x0.ts" in out.read_text()
    assert caplog.messages[0] == f"{out} cannot be written (no space left on device)"
    assert len(caplog.messages) == 1 and "could not be written (no space left" in context.failures[str(out)]
    assert "Traceback" not in capfd.readouterr().err  # of PyAV, about an error that FFmpeg did not pass on


def test_a_full_disk_keeps_the_pictures_of_a_live_sequence(disk: Callable[..., Path]) -> None:
    """Of which each is whole."""
    place = disk("size=400k")
    with (pytest.raises(SinkError, match=r"no space left .*; \d+ pictures are in "),
          live_sink(str(place / "%d.png")) as sink):
        record(sink, 40)
    assert len(names(place)) > 3
    assert names(place) == sorted(f"{number}.png" for number in range(1, len(names(place)) + 1))
    assert all(cv2.imread(str(place / name)) is not None for name in names(place))


def free_blocks(place: Path) -> int:
    return os.statvfs(place).f_bfree
