"""What visitors send: what is refused and in which words, and that nothing of it stays."""
from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from streamdream_web.jobs.uploads import Uploads
from support.picture_files import heic
from support.web_uploads import clip, files, opened, send

from streamdream.errors import UsageError
from streamdream.media import images
from streamdream.system.stats import peak_rss_mb

HOUR = 3600


@pytest.fixture()
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    with opened(tmp_path) as kept:
        yield kept


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


def test_a_server_that_reads_no_heic_says_what_to_do(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                     ) -> None:
    (tmp_path / "pi_heif.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="reads no HEIC pictures; save it as a JPEG"):
        send(uploads, heic("plain"), "IMG_1.HEIC")


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile {}\n",
                                  "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"])
def test_an_upload_cannot_read_the_file_of_another(uploads: Uploads, tmp_path: Path, text: str) -> None:
    hers = send(uploads, clip(tmp_path, ".mkv"), "hers.mkv")
    with pytest.raises(UsageError, match="not a video"):
        send(uploads, text.format(hers.path.name).encode(), "mine.mkv")
    assert files(uploads) == [hers.path]


def test_size_is_counted_whatever_is_stated(uploads: Uploads) -> None:
    with pytest.raises(UsageError, match=r"too large \(100.0 MB; the limit is 8 MB\)"):
        send(uploads, b"x", "a.mp4", stated=100_000_000)
    with pytest.raises(UsageError, match=r"too large \(the limit is 8 MB\)"):
        send(uploads, bytes(9_000_000), "a.mp4")
    assert not files(uploads)
