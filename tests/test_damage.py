"""What is no video, or not a whole one: one line that says so, and the frames before the damage."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clips import Clip, make, number_of, only_sound, sound_with_cover, truncated

from streamdream.errors import SourceError, UsageError
from streamdream.media.sources.video import open_source

NOBODY = 65534


@pytest.fixture
def nobody() -> Iterator[Callable[[], None]]:
    """Gives up the rights of root, to whom all files are readable."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    yield lambda: os.seteuid(NOBODY)
    os.seteuid(0)


def test_open_source_names_a_missing_file(clip: str) -> None:
    with pytest.raises(UsageError, match=r"no such file: .*clop\.mp4; did you mean clip\.mp4\?"):
        open_source(clip.replace("clip.mp4", "clop.mp4"))


def test_open_source_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.mp4", b"", "is empty"),
    ("a.mp4", b"just some text\n" * 300, "is damaged, or not a video"),
    ("a.mkv", b"just some text\n" * 300, "is damaged, or not a video"),
    ("a.txt", b"just some text\n" * 300, "is damaged, or not a video"),
    ("a.mp4", b"ffconcat version 1.0\nfile 'steady.mp4'\n", "is damaged, or not a video"),
    ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsteady.mp4\n#EXT-X-ENDLIST\n", "is a play list"),
])
def test_open_source_refuses_what_is_no_video(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    """Text, and also play lists: they would make FFmpeg open what they name."""
    make(tmp_path / "steady.mp4", Clip(3))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=words) as caught:
        open_source(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_protocols_are_not_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.mp4", Clip(3))
    for name in ("concat:a.mp4|a.mp4", "subfile,,start,0,end,9,,:a.mp4", "file:a.mp4"):
        with pytest.raises(UsageError, match="no such file"):
            open_source(name)
    Path("file:b.mp4").write_bytes(Path("a.mp4").read_bytes())
    with open_source("file:b.mp4") as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize("makes", [only_sound, sound_with_cover])
def test_open_source_refuses_a_file_with_only_sound(tmp_path: Path, makes: Callable[[Path], str]) -> None:
    with pytest.raises(SourceError, match="holds no video, only sound"):
        open_source(makes(tmp_path / "a.mp4"))


def test_open_source_names_a_file_that_cannot_be_read(nobody: Callable[[], None]) -> None:
    path = Path("/dev/shm") / f"streamdream-test-{os.getpid()}.mp4"  # pytest's own folders are closed to nobody
    path.write_bytes(b"x" * 100)
    path.chmod(0o600)
    try:
        nobody()
        with pytest.raises(SourceError, match="cannot be read: permission denied"):
            open_source(str(path))
    finally:
        os.seteuid(0)
        path.unlink()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("span", [{}, {"start": 0.5}])
def test_a_truncated_file_gives_its_frames_and_a_warning(tmp_path: Path, name: str, span: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 48, 64, 3), dtype=np.uint8)
    clip = Clip(120, container_options={"movflags": "faststart"} if name == "a.mp4" else {})
    path = truncated(make(tmp_path / name, clip, list(noise)), 0.6)
    with open_source(path, **span) as source:
        frames = list(source)
    assert 20 < len(frames) < 90
    assert len(source.warnings) == 1
    assert "is damaged after" in source.warnings[0]
    assert f"the {len(frames)} frames before were kept" in source.warnings[0]


def test_a_file_truncated_before_its_first_frame_is_refused(tmp_path: Path) -> None:
    """The index of an mp4 comes last, unless it was asked for."""
    with pytest.raises(SourceError, match="is damaged, or not a video"):
        open_source(truncated(make(tmp_path / "a.mp4", Clip(30)), 0.5))


def test_a_file_without_a_frame_that_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", Clip(30, container_options={"movflags": "faststart"}))
    data = bytearray(Path(path).read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    Path(path).write_bytes(data)
    with pytest.raises(SourceError, match="nothing in it could be decoded"):
        open_source(path)


def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    clip = Clip(30, codec="mjpeg", pixels="yuvj420p")
    path = make(tmp_path / "a.mp4", clip)
    data = bytearray(Path(path).read_bytes())
    pictures = [place for place in range(len(data)) if data[place: place + 3] == b"\xff\xd8\xff"]
    for number in (10, 11, 20):
        data[pictures[number]: pictures[number + 1]] = bytes(pictures[number + 1] - pictures[number])
    Path(path).write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(12, 20), *range(21, 30)]
    assert source.warnings == [f"3 damaged packets of {path} were skipped"]
    with open_source(path, start=0.71) as source:  # what lies before the start is not even read
        assert [number_of(frame.image) for frame in source] == list(range(22, 30))
    assert source.warnings == []
