"""What visitors send: what is taken, under which name it is kept, and for how long."""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from streamdream_web.core import limits
from streamdream_web.jobs.file_inspection import InspectionLimits
from streamdream_web.jobs.uploads import Uploads
from streamdream_web.pages import components
from streamdream_web.pages.file_drop import DroppedFile
from support.picture_files import chart, heic, tiled_heic
from support.web_uploads import LIMITS, clip, files, opened, send

from streamdream.errors import SourceError, UsageError
from streamdream.media import images
from streamdream.media.input_container import TimeRange


@pytest.fixture()
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    with opened(tmp_path) as kept:
        yield kept


def test_a_video_is_taken_and_described(uploads: Uploads, world: Path) -> None:
    upload = send(uploads, world.read_bytes(), "world.mp4")
    facts = upload.facts
    assert (facts.width, facts.height, facts.frames, facts.codec, facts.sound) == (480, 270, 901, "h264", "aac")
    assert facts.seconds == pytest.approx(30.03, abs=0.05)
    with upload.open(TimeRange.of(1.0, end=1.2)) as source:
        assert len(list(source)) == 6


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mov", ".avi", ".gif"])
def test_every_kind_of_video_that_is_offered(uploads: Uploads, tmp_path: Path, suffix: str) -> None:
    codec, pixels = {".webm": ("libvpx-vp9", "yuv420p"), ".gif": ("gif", "rgb8"), ".avi": ("mpeg4", "yuv420p")}.get(
        suffix, ("libx264", "yuv420p"))
    unit = Fraction(1, 100) if suffix == ".gif" else Fraction(1, 30)
    upload = send(uploads, clip(tmp_path, suffix, codec=codec, pixels=pixels, frames=12, time_base=unit), f"a{suffix}")
    with upload.open() as source:
        assert len(list(source)) == 12


def test_a_video_under_the_name_of_another_kind_is_what_it_is(uploads: Uploads, tmp_path: Path) -> None:
    upload = send(uploads, clip(tmp_path), "a.webm")
    with upload.open() as source:
        assert len(list(source)) == 30


def test_a_picture_is_kept_as_one_of_ours(uploads: Uploads, lion: Any, tmp_path: Path) -> None:
    """Decoded and written anew, so whatever else was in the file is gone."""
    images.write_image(str(tmp_path / "lion.jpg"), lion)
    data = (tmp_path / "lion.jpg").read_bytes() + b"<?php evil"
    upload = send(uploads, data, "lion.jpg")
    assert upload.path.suffix == ".png" and b"evil" not in upload.path.read_bytes()
    assert np.abs(images.read_image(str(upload.path)).astype(int) - lion).mean() < 3
    assert files(uploads) == [upload.path]


@pytest.mark.parametrize("name", ["a.avif", "a.tif", "a.bmp", "b.heic", "heic-inside.jpg"])
def test_pictures_of_phones_are_taken_whatever_their_name(uploads: Uploads, tmp_path: Path, name: str) -> None:
    if "heic" in name:
        pytest.importorskip("pi_heif")
        (tmp_path / name).write_bytes(heic("turned"))
    else:
        chart(128, 96).save(tmp_path / name)
    upload = send(uploads, (tmp_path / name).read_bytes(), name)
    image = images.read_image(str(upload.path))
    assert upload.path.suffix == ".png" and image.shape == (96, 128, 3) and image[8, 8, 0] > 200 > 60 > image[8, 8, 1]


@pytest.mark.soak
@pytest.mark.parametrize("size", [(4032, 3024), (5712, 4284)])
def test_a_picture_of_a_phone_is_taken_at_its_full_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """With the limits of a server that was started without options, in the memory of an inspection."""
    pytest.importorskip("pi_heif")
    uploads = Uploads(tmp_path / "uploads", InspectionLimits(200, 60, 3840 * 2160))
    upload = send(uploads, tiled_heic(*size), "IMG_1.HEIC")
    image = images.read_image(str(upload.path))
    assert image.shape[0] / image.shape[1] == pytest.approx(size[0] / size[1], abs=0.01)
    assert image.shape[0] * image.shape[1] <= 1920 * 1081
    uploads.close()


def test_what_is_said_of_a_picture_reaches_its_visitor(uploads: Uploads, lion: Any, tmp_path: Path) -> None:
    """The command warns of a picture that is cut off; on the page that is a note at the result."""
    images.write_image(str(tmp_path / "lion.png"), lion)
    data = (tmp_path / "lion.png").read_bytes()
    try:
        upload = send(uploads, data[: len(data) * 2 // 3], "lion.png")
    except UsageError as refused:
        assert "this file is" in str(refused)
        return
    assert len(upload.facts.notes) == 1 and "this file is damaged" in upload.facts.notes[0]


def test_a_large_picture_is_made_smaller(uploads: Uploads, tmp_path: Path) -> None:
    images.write_image(str(tmp_path / "large.png"), np.zeros((1000, 2073, 3), np.uint8))
    uploads.inspection_limits = InspectionLimits(8, 60, 1000 * 2073)
    upload = send(uploads, (tmp_path / "large.png").read_bytes(), "large.png")
    assert upload.facts.width * upload.facts.height <= 1920 * 1081


@pytest.mark.parametrize("name", ["../../../etc/cron.d/x.mp4", "..\\..\\x.mp4", "/etc/x.mp4", "a\0b.mp4",
                                  "<script>alert(1)</script>.mp4", '"><img src=x onerror=alert(1)>.mp4',
                                  "x" * 5000 + ".mp4"])
def test_names_never_reach_the_disk_nor_the_page(uploads: Uploads, tmp_path: Path, name: str) -> None:
    upload = send(uploads, clip(tmp_path), name)
    assert upload.path.parent == uploads.folder and upload.path.name == f"{upload.token}.mp4"
    assert files(uploads) == [upload.path]
    assert len(upload.name) <= 60 and "/" not in upload.name and "\0" not in upload.name
    assert "<" not in components.saved_name(upload.name, ".mp4") and "/" not in components.saved_name(
        upload.name, ".mp4"
    )


def test_frames_that_grow_in_the_middle_are_damage(uploads: Uploads, tmp_path: Path) -> None:
    """A stream may change its size: the header's counted when it was let in, so no larger one is decoded."""
    small, large = (encoded(size, 40) for size in ((64, 48), (2048, 2048)))
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=30, options={"x264-params": "repeat-headers=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, data in enumerate(small + large[:2]):
            packet: Any = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 30), stream, number % 40 == 0
            output.mux(packet)
    upload = send(uploads, path.read_bytes(), "grows.mkv")
    with upload.open() as source:
        try:
            seen = [frame.image.shape for frame in source]
        except SourceError:
            return
    assert len(seen) == 40


def encoded(size: tuple[int, int], count: int) -> list[bytes]:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 30)
    context.options = {"x264-params": "repeat-headers=1:bframes=0", "preset": "ultrafast", "tune": "zerolatency"}
    picture = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24").reformat(format="yuv420p")
    packets = []
    for number in range(count):
        picture.pts, picture.time_base = number, Fraction(1, 30)
        packets += [bytes(packet) for packet in context.encode(picture)]
    return packets + [bytes(packet) for packet in context.encode(None)]


def test_files_live_as_long_as_their_session(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(tmp_path)
    mine, hers, nobodys = (send(uploads, data, "a.mp4") for _ in range(3))
    assert uploads.claim(mine.token, "me") is mine
    uploads.claim(hers.token, "her")
    with pytest.raises(UsageError, match="not here any more"):
        uploads.claim(hers.token, "me")
    with pytest.raises(UsageError, match="not here any more"):
        uploads.claim("../../etc/passwd", "me")
    uploads.drop(mine.token)
    assert not mine.path.exists() and hers.path.exists()
    monkeypatch.setattr(limits, "UNCLAIMED_SECONDS", 0)
    uploads.sweep()
    assert not nobodys.path.exists() and files(uploads) == [hers.path]


def test_a_visitor_keeps_only_the_newest_files(tmp_path: Path) -> None:
    few = Uploads(tmp_path / "few", LIMITS, max_per_visitor=1)
    older, newer = (few.claim(few.take(components.one_pixel(), "mask.png").token, "me") for _ in range(2))
    assert not older.path.exists() and newer.path.exists()


@pytest.mark.parametrize("value", ["{}", "[]", "null ", '{"token": 1, "start": -1}', "x", 7,
                                   '{"token": "a", "start": 2, "end": 1}', '{"token": "a", "mask": "base64,***"}',
                                   '{"token": "a", "start": "NaN"}', '{"uploading": true}'])
def test_what_a_page_says_of_a_file_is_checked(value: object) -> None:
    with pytest.raises(UsageError):
        DroppedFile.parse(value)
