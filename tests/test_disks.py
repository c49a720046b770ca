"""Disks that refuse: full, read-only, forbidden or gone. What was there stays, and no output is half of one."""
from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from media import Clip, make
from sinking import NAMES, copy, names, noise, read

from streamdream.errors import SinkError
from streamdream.settings import RenderSettings
from streamdream.sinks import open_sink
from streamdream.sources import open_source

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
def test_full_disk(folder: Path, disk: Callable[..., Path], name: str, size: str) -> None:
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
def test_full_at_any_moment(disk: Callable[..., Path], clip: str, name: str, blocks: int) -> None:
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
def test_read_only_disk(disk: Callable[..., Path], clip: str, name: str) -> None:
    place = disk("size=100k", "ro")
    with pytest.raises(SinkError, match=r"cannot be written .*read-only"):
        copy(clip, place / name)


@pytest.mark.parametrize("name", NAMES)
def test_forbidden_folder(clip: str, name: str) -> None:
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
def test_the_folder_vanishes(tmp_path: Path, clip: str, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(SinkError, match="cannot be written: its folder is gone"), open_source(clip) as source, \
            open_sink(str(place / name), source, RenderSettings()) as sink:
        for number, frame in enumerate(source):
            if number == 10:
                place.rename(tmp_path / "elsewhere")
            sink.write(frame.image, frame)
