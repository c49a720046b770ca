"""Details of inputs that a render must get right: transparency that is none, HDR of 8 bits, times before 0."""
from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.clips import Clip, make
from support.commands import here
from support.hdr_clips import METADATA, hdr_picture, scene, write_clip
from support.inputs.row import CHEAP

PQ = (9, 9, 16, 1)


def said(capsys: pytest.CaptureFixture[str], command: str, source: object, output: object, *flags: str) -> str:
    """The warnings of a command that succeeds."""
    done = here(capsys, command, str(source), "-o", str(output), *CHEAP, *flags)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if line.startswith("warning: "))


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def rgba(path: Path, opaque: list[bool]) -> Path:
    """A video with alpha; some pictures are half transparent."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("qtrle", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        for number, whole in enumerate(opaque):
            image = np.full((48, 64, 4), 200, np.uint8)
            image[..., 3] = 255 if whole else 128
            frame = av.VideoFrame.from_ndarray(image, "rgba").reformat(format="argb")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("opaque", "is_said"), [([True, True], False), ([False, True], True), ([True, False], True)])
@pytest.mark.parametrize("name", ["out.mp4", "out_%d.jpg"])
def test_transparency_is_said_to_be_lost_only_where_there_is_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opaque: list[bool], is_said: bool, name: str
) -> None:
    from streamdream.media.sinks.encoders import say_once

    say_once.cache_clear()
    warnings = said(capsys, "render", rgba(tmp_path / "in.mov", opaque), tmp_path / name)
    assert ("transparency: it becomes black" in warnings) == is_said
    assert warnings.count("\n") == 0


def test_a_sequence_whose_later_pictures_are_transparent_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, alpha in enumerate((255, 100)):
        Image.new("RGBA", (64, 48), (200, 100, 50, alpha)).save(tmp_path / f"{number}.png")
    warnings = said(capsys, "render", tmp_path / "%d.png", tmp_path / "out.mp4")
    assert "has transparent pictures, but the first is opaque" in warnings


@pytest.mark.parametrize(("flags", "bits", "transfer"), [
    ((), 10, 16), (("--sdr",), 8, 1), (("-c:v", "libx264"), 8, 1), (("-c:v", "ffv1"), 8, 16),
])
def test_hdr_of_8_bits_is_hdr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], bits: int, transfer: int
) -> None:
    path = make(tmp_path / "in.mkv", Clip(4, codec="ffv1", color=PQ))
    said(capsys, "render", path, tmp_path / "out.mkv", "--strength", "0.5", *flags)
    after = decoded(tmp_path / "out.mkv")
    assert len(after) == 4
    assert (after[0].format.components[0].bits, int(after[0].color_trc)) == (bits, transfer)


@pytest.mark.parametrize(("codec", "is_said"), [("prores_ks", True), ("ffv1", True), ("libx265", False)])
def test_an_encoder_that_stores_no_hdr_metadata_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], codec: str, is_said: bool
) -> None:
    path = write_clip(tmp_path / "in.mp4", [hdr_picture(scene(16), 16)] * 3, METADATA.x265_params())
    warnings = said(capsys, "render", path, tmp_path / "out.mov" if codec == "prores_ks" else tmp_path / "out.mkv",
                    "-c:v", codec)
    assert ("light level of HDR: left out" in warnings) == is_said


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.avi"])
def test_pictures_before_time_0_are_shown_and_the_sound_stays_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as output:
        pictures, sound = output.add_stream("mjpeg", rate=25), output.add_stream("pcm_s16le", rate=48000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuvj420p"
        sound.layout = "mono"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), "rgb24")
            block = av.AudioFrame.from_ndarray(np.full((1, 1920), number + 1, np.int16), "s16", "mono")
            block.sample_rate = 48000
            for packet in [*pictures.encode(frame.reformat(format="yuvj420p")), *sound.encode(block)]:
                packet.time_base, packet.pts = Fraction(1, 1000), 40 * number - 200
                packet.dts = packet.pts
                output.mux(packet)
    said(capsys, "render", path, tmp_path / name, "--strength", "0")
    with av.open(str(tmp_path / name)) as container:
        times = [round(frame.time or 0, 3) for frame in container.decode(video=0)]
    assert times == [round(0.04 * number, 3) for number in range(12)]
    with av.open(str(tmp_path / name)) as container:
        first = next(container.decode(audio=0))
    assert abs(first.time or 0) < 0.03


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_the_first_picture_of_an_avi_lasts_as_long_as_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], codec: str
) -> None:
    path = make(tmp_path / "in.mp4", Clip(12, rate=Fraction(25), time_base=Fraction(1, 25), audio=codec))
    said(capsys, "render", path, tmp_path / "out.avi", "--strength", "0")
    with av.open(str(tmp_path / "out.avi")) as container:
        assert [packet.pts for packet in container.demux(video=0) if packet.size] == list(range(12))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(path: Path, *more: bytes) -> NDArray[np.uint16]:
    """16 bits a sample, with ``more`` chunks before the samples."""
    image = np.random.default_rng(0).integers(0, 65536, (48, 64, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0))
                     + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return image.astype(np.uint16)


@pytest.mark.parametrize("more", [
    (chunk(b"cHRM", bytes(32)), chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))), (chunk(b"sBIT", b"\x20"),),
    (chunk(b"gAMA", b"\0\0\0\0"), chunk(b"tIME", b"\0")),
])
def test_damaged_chunks_of_a_deep_png_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: tuple[bytes, ...]
) -> None:
    from streamdream.media.picture_decoder import read_picture

    image = deep_png(tmp_path / "a.png", *more)
    picture = read_picture(tmp_path / "a.png", deep=True)
    assert picture.deep is not None and (picture.deep == image).all()
    assert capfd.readouterr().err == ""


def test_a_png_whose_samples_claim_2_gb_takes_no_memory_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import resource

    from streamdream.media.picture_decoder import read_picture

    image = deep_png(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + struct.pack(">I", 0x7FFFFFFF) + data[start + 4:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    picture = read_picture(tmp_path / "a.png", deep=True)
    assert picture.deep is None or (picture.deep == image).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert capfd.readouterr().err == ""


def test_a_tiff_that_lost_its_samples_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from streamdream.errors import SourceError
    from streamdream.media.picture_decoder import read_picture

    Image.new("RGB", (64, 48)).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    directory = struct.unpack_from("<I", data, 4)[0]
    entries = [directory + 2 + 12 * number for number in range(struct.unpack_from("<H", data, directory)[0])]
    offsets = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == 273)
    struct.pack_into("<H", data, offsets, 65297)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(SourceError, match="damaged picture"):
        read_picture(tmp_path / "a.tif", deep=True)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", ["image", "render"])
def test_a_small_file_that_claims_a_huge_picture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    Image.new("1", (14400, 14400)).save(tmp_path / "fax.tif", compression="group4")
    assert (tmp_path / "fax.tif").stat().st_size < 20_000
    done = here(capsys, command, str(tmp_path / "fax.tif"), "-o", str(tmp_path / "out.png"), *CHEAP)
    assert done.returncode in (1, 2)
    assert "14400x14400" in done.stderr and done.stderr.strip().count("\n") <= 1
