"""What visitors send: what is taken, what is refused and in which words, and that nothing of it stays."""
from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from streamdream_web.core import limits
from streamdream_web.jobs.file_inspection import InspectionLimits
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.pages import components
from streamdream_web.pages.file_drop import DroppedFile
from support.clips import Clip, make
from support.picture_files import chart, heic
from support.web_jobs import ManualClock

from streamdream.errors import SourceError, UsageError
from streamdream.media import images
from streamdream.media.input_container import TimeRange
from streamdream.system.stats import peak_rss_mb

LIMITS = InspectionLimits(megabytes=8, seconds=60, pixels=1920 * 1080)
HOUR = 3600


@pytest.fixture()
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    kept = Uploads(tmp_path / "uploads", LIMITS)
    yield kept
    kept.close()
    assert not (tmp_path / "uploads").exists()


def send(uploads: Uploads, data: bytes, name: str, stated: int = 0, address: str = "") -> Upload:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 65536):
            yield data[start:start + 65536]

    return asyncio.run(uploads.receive(name, chunks(), stated, address))


def files(uploads: Uploads) -> list[Path]:
    return list(uploads.folder.rglob("*"))


def clip(tmp_path: Path, suffix: str = ".mp4", **what: Any) -> bytes:
    return Path(make(tmp_path / f"made{suffix}", Clip(**what))).read_bytes()


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
    uploads._inspection_limits = InspectionLimits(8, 60, 1000 * 2073)
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


# --- what is refused


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int, tmp_path: Path) -> bytes:
    images.write_image(str(tmp_path / "small.jpg"), np.zeros((16, 16, 3), np.uint8))
    data = (tmp_path / "small.jpg").read_bytes()
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4:]


def gif(width: int, height: int, frames: int, delay: int = 10) -> bytes:
    """Of one pixel a frame, so that many weigh little."""
    picture = (b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\0\0"
               + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0")
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + picture * frames + b"\x3b"


def one_picture_again(path: Path, pts_ms: list[int]) -> bytes:
    """A .mkv that shows the same small picture at all these times."""
    with av.open(str(path), "w", options={"cluster_time_limit": "1", "live": "1"}) as output:
        stream: Any = output.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24").reformat(format="yuvj420p")
        data = bytes(stream.encode(picture)[0])
        for time in pts_ms:
            packet: Any = av.Packet(data)
            packet.pts = packet.dts = time
            packet.time_base, packet.stream = Fraction(1, 1000), stream
            output.mux(packet)
    return path.read_bytes()


def restarting(tmp_path: Path) -> bytes:
    """Its clock goes to 50 s and back again, over and over: by its last time it is short."""
    written = bytearray(one_picture_again(tmp_path / "restarting.mkv", list(range(0, 200_000, 1000))))
    place = 0
    for number in range(200):  # a cluster's own time: element E7, then its length, then the milliseconds
        place = written.index(b"\x1f\x43\xb6\x75", place) + 4
        found = written.index(b"\xe7", place)
        length = written[found + 1] & 0x7f
        written[found + 2:found + 2 + length] = (number % 50 * 1000).to_bytes(length, "big")
    return bytes(written)


def long_by_its_header(tmp_path: Path) -> bytes:
    """Half a second of frames, and a header that says four hours: element 4489 holds the milliseconds."""
    data = bytearray(clip(tmp_path, ".mkv", frames=15, time_base=Fraction(1, 1000), pts=range(0, 480, 32)))
    place = data.index(b"\x44\x89\x88") + 3
    data[place:place + 8] = struct.pack(">d", 4.0 * HOUR * 1000)
    return bytes(data)


def test_a_header_that_states_hours_is_not_believed(uploads: Uploads, tmp_path: Path) -> None:
    """One wrong timestamp makes such a header; what counts are the packets."""
    facts = send(uploads, long_by_its_header(tmp_path), "a.mkv").facts
    assert facts.frames == 15 and facts.seconds == pytest.approx(0.48, abs=0.04)


REFUSED: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "a play list of FFmpeg": ("a.mp4", lambda tmp: b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video"),
    "a play list of FFmpeg by name": ("a.ffconcat", lambda tmp: b"ffconcat version 1.0\nfile a.mp4\n", "not accepted"),
    "HLS": ("a.mp4", lambda tmp: b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not a video"),
    "HLS as mkv": ("a.mkv", lambda tmp: b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://127.0.0.1/\n", "not a video"),
    "SVG": ("a.svg", lambda tmp: b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "not accepted"),
    "SVG as PNG": ("a.png", lambda tmp: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    "HTML as JPEG": ("a.jpg", lambda tmp: b"<html><script>alert(1)</script></html>", "not a picture"),
    "no name": ("", lambda tmp: b"x", "not accepted"),
    "nothing": ("a.mp4", lambda tmp: b"", "empty"),
    "noise": ("a.webm", lambda tmp: np.random.default_rng(1).bytes(5000), "not a video"),
    "a huge PNG": ("a.png", lambda tmp: png_header(30000, 30000), "too large|too many"),
    "a huge JPEG": ("a.jpg", lambda tmp: jpeg_header(30000, 30000, tmp), "too large|too many"),
    "a huge GIF": ("a.gif", lambda tmp: gif(30000, 30000, 2), "too many|size of the picture is unknown"),
    "a long GIF": ("a.gif", lambda tmp: gif(64, 64, 20_000), "longer than 1 min"),
    "a GIF of too many frames": ("a.gif", lambda tmp: gif(640, 480, 200_000, 0), "longer than|too many frames"),
    "a moving picture": ("a.webp", lambda tmp: moving_webp(tmp), "animated"),
    "four hours": ("a.mp4", lambda tmp: clip(tmp, ".mp4", pts=[n * HOUR // 2 for n in range(9)],
                                             time_base=Fraction(1, 1)), "longer than 1 min"),
    "four hours, not stated": ("a.mkv", lambda tmp: clip(
        tmp, ".mkv", pts=[n * HOUR * 500 for n in range(9)], time_base=Fraction(1, 1000),
        container_options={"live": "1"}), "longer than 1 min"),
    "a clock that starts anew": ("a.mkv", restarting, "longer than 1 min"),
    "too many frames": ("a.mkv", lambda tmp: one_picture_again(tmp / "many.mkv", list(range(7300))), "too many frames"),
    "another codec": ("a.mkv", lambda tmp: clip(tmp, ".mkv", codec="ffv1"), "codec ffv1"),
    "another sound codec": ("a.avi", lambda tmp: clip(tmp, ".avi", codec="mpeg4", audio="adpcm_yamaha"),
                            "sound codec adpcm_yamaha"),
    "only sound": ("a.mp4", lambda tmp: sound(tmp), "no video, only sound"),
    "cut in the middle": ("a.mp4", lambda tmp: clip(tmp)[:2000], "not a video|damaged|holds no video"),
}


def moving_webp(tmp_path: Path) -> bytes:
    from PIL import Image

    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pictures[0].save(tmp_path / "moving.webp", save_all=True, append_images=pictures[1:])
    return (tmp_path / "moving.webp").read_bytes()


def sound(tmp_path: Path) -> bytes:
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream: Any = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return (tmp_path / "sound.mp4").read_bytes()


@pytest.mark.parametrize("case", REFUSED)
def test_an_upload_that_is_no_video_or_picture_is_refused(uploads: Uploads, tmp_path: Path, case: str) -> None:
    name, craft, words = REFUSED[case]
    data = craft(tmp_path)
    before = peak_rss_mb()
    with pytest.raises(UsageError, match=words) as refused:
        send(uploads, data, name)
    assert str(uploads.folder) not in str(refused.value) and "\n" not in str(refused.value)
    assert not files(uploads)
    assert peak_rss_mb() - before < 100


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile {}\n",
                                  "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"])
def test_an_upload_cannot_read_the_file_of_another(uploads: Uploads, tmp_path: Path, text: str) -> None:
    hers = send(uploads, clip(tmp_path, ".mkv"), "hers.mkv")
    with pytest.raises(UsageError, match="not a video"):
        send(uploads, text.format(hers.path.name).encode(), "mine.mkv")
    assert files(uploads) == [hers.path]


def test_size_is_counted_whatever_is_stated(uploads: Uploads) -> None:
    with pytest.raises(UsageError, match="larger than 8 MB"):
        send(uploads, b"x", "a.mp4", stated=100_000_000)
    with pytest.raises(UsageError, match="larger than 8 MB"):
        send(uploads, bytes(9_000_000), "a.mp4")
    assert not files(uploads)


def test_a_body_that_stalls_is_refused(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    with pytest.raises(UsageError, match="too slow"):
        asyncio.run(uploads.receive("a.mp4", silent()))
    assert not files(uploads)


def test_uploads_of_one_address_are_limited(uploads: Uploads, tmp_path: Path) -> None:
    data = clip(tmp_path)

    async def crowd() -> list[Any]:
        going = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await going.wait()
            yield data

        async def other() -> Upload:
            async def chunks() -> AsyncIterator[bytes]:
                yield data
            try:
                return await uploads.receive("a.mp4", chunks(), address="another")
            finally:
                going.set()

        many = [uploads.receive("a.mp4", slow(), address="one") for _ in range(6)]
        return await asyncio.gather(*many, other(), return_exceptions=True)

    answers = asyncio.run(crowd())
    assert isinstance(answers[-1], Upload)
    assert sum(isinstance(answer, UsageError) for answer in answers[:-1]) == 6 - limits.MAX_UPLOADS_PER_ADDRESS


def test_a_slow_upload_ends_when_another_address_waits(tmp_path: Path) -> None:
    """The slowest one has to end once another address wants its place, and it has had its time."""
    clock = ManualClock()
    uploads = Uploads(tmp_path / "uploads", LIMITS, clock=clock)
    answers: dict[str, Any] = {}

    async def receive(name: str, address: str, *chunks: bytes, ends: bool = False) -> None:
        async def slow() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk
            if not ends:
                await asyncio.sleep(60)

        try:
            answers[name] = await uploads.receive("mask.png", slow(), address=address)
        except UsageError as error:
            answers[name] = str(error)

    async def crowd() -> None:
        sizes = {f"slow {number}": 1 if number == 4 else 2 for number in range(limits.MAX_UPLOADS)}
        slow = [asyncio.create_task(receive(name, f"203.0.113.{number // 3}", bytes(size)))
                for number, (name, size) in enumerate(sizes.items())]
        await asyncio.sleep(0.1)
        await receive("early", "198.51.100.7", components.one_pixel(), ends=True)
        clock.seconds += limits.SHARED_UPLOAD_SECONDS + 1
        await receive("late", "198.51.100.7", components.one_pixel(), ends=True)
        await asyncio.wait(slow, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(crowd())
    uploads.close()
    assert "too many files" in answers["early"] and isinstance(answers["late"], Upload)
    assert {name for name in answers if name.startswith("slow")} == {"slow 4"} and "too slow" in answers["slow 4"]


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
    uploads.forget("me")
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
                                   '{"token": "a", "start": "NaN"}'])
def test_what_a_page_says_of_a_file_is_checked(value: object) -> None:
    with pytest.raises(UsageError):
        DroppedFile.parse(value)
