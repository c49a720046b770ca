"""What encoders make of pictures of other kinds: pixel formats, colours, transparency, HDR."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFormat
from av.codec.context import CodecContext
from PIL import Image
from support.clips import Clip, make
from support.picture_copies import HLG, copy_in_chunks, copy_pictures, decoded, half_clear, same_samples

from streamdream.errors import UnknownName

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
PQ, BT709, BT601 = (9, 9, 16, 1), (1, 1, 1, 1), (6, 6, 6, 1)


def clip(folder: Path, pixels: str, color: tuple[int, int, int, int] | None = None,
         size: tuple[int, int] = (64, 48)) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (3, *size[::-1], 3), dtype=np.uint8)
    return make(folder / f"in_{pixels}.mkv", Clip(3, size, codec="ffv1", pixels=pixels, color=color), noise)


def tags(picture: Any) -> tuple[int, ...]:
    return tuple(map(int, (picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range)))


@pytest.mark.parametrize(("pixels", "color"), [
    ("yuv420p", BT709), ("yuv422p", BT601), ("yuv444p", BT709), ("yuv420p10le", HLG), ("yuv422p10le", PQ),
    ("yuv420p12le", BT709), ("yuv420p", (6, 6, 6, 2)), ("gbrp10le", None), ("bgr0", None), ("bgra", None),
    ("yuva420p", BT709), ("yuva444p10le", BT709), ("yuv411p", BT601), ("gray", None),
])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_ffv1_stores_the_decoders_samples(tmp_path: Path, pixels: str, color: tuple[int, int, int, int] | None,
                                          size: tuple[int, int]) -> None:
    path = clip(tmp_path, pixels, color, size)
    assert copy_in_chunks(path, tmp_path / "out.mkv", codec="ffv1") == []
    before, after = decoded(path), decoded(tmp_path / "out.mkv")
    assert len(before) == len(after) == 3
    assert all(same_samples(one, other) for one, other in zip(before, after, strict=True))
    assert after[0].format.name == pixels or pixels == "gray"
    if color:
        assert tags(after[0]) == color


@pytest.mark.parametrize(("given", "name", "codec", "wanted"), [
    ("yuv422p", "a.mp4", "auto", "yuv420p"), ("yuv444p", "a.mp4", "libx264", "yuv420p"),
    ("yuv420p10le", "a.mp4", "libx264", "yuv420p"), ("yuv420p10le", "a.mp4", "libx265", "yuv420p10le"),
    ("yuv420p12le", "a.mp4", "libx265", "yuv420p10le"), ("yuv420p", "a.mp4", "libx265", "yuv420p"),
    ("yuv422p10le", "a.mp4", "libsvtav1", "yuv420p10le"), ("yuv420p", "a.mov", "prores_ks", "yuv422p10le"),
    ("yuva420p", "a.mov", "prores_ks", "yuva444p12le"), ("bgra", "a.mov", "qtrle", "argb"),
    ("yuv420p", "a.mov", "qtrle", "rgb24"), ("bgra", "a.apng", "auto", "rgba"),
    ("gbrp10le", "a.apng", "auto", "rgb48be"),
    ("yuv422p", "a.mkv", "mjpeg", "yuvj422p"), ("bgr0", "a.mp4", "auto", "yuv420p"),
])
def test_the_nearest_format_that_players_know_is_used(tmp_path: Path, given: str, name: str, codec: str, wanted: str
                                                      ) -> None:
    copy_in_chunks(clip(tmp_path, given), tmp_path / name, codec=codec)
    assert decoded(tmp_path / name)[0].format.name == wanted


def test_a_pixel_format_can_be_chosen(tmp_path: Path) -> None:
    path = clip(tmp_path, "yuv420p")
    copy_pictures(path, tmp_path / "a.mp4", pixel_format="yuv444p")
    assert decoded(tmp_path / "a.mp4")[0].format.name == "yuv444p"
    with pytest.raises(UnknownName, match=r"pixel format of libx264 'yuv442p'; did you mean .*yuv444p"):
        copy_pictures(path, tmp_path / "b.mp4", pixel_format="yuv442p")


# -- colours --


def bars(folder: Path, pixels: str, color: tuple[int, int, int, int]) -> str:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (200, 60, 30), (30, 90, 210)
    return make(folder / "bars.mkv", Clip(3, codec="ffv1", pixels=pixels, color=color), [image] * 3)


def error(path: Path) -> float:
    rgb = decoded(path)[0].to_ndarray(format="rgb24").astype(int)
    return float(max(np.abs(rgb[24, 8] - (200, 60, 30)).max(), np.abs(rgb[24, 56] - (30, 90, 210)).max()))


@pytest.mark.parametrize("color", [BT709, BT601, (1, 1, 1, 2)])
@pytest.mark.parametrize(("name", "codec"), [
    ("a.mp4", "auto"), ("a.avi", "auto"), ("a.webm", "auto"), ("a.mkv", "libvpx"), ("a.mp4", "mjpeg"),
    ("a.mov", "prores_ks"), ("a.mov", "qtrle"), ("a.gif", "auto"), ("a.apng", "auto"),
])
def test_colours_look_as_before(tmp_path: Path, color: tuple[int, int, int, int], name: str, codec: str) -> None:
    """The matrix was not changed where an encoder knows one only: reds were 19 levels off."""
    path = bars(tmp_path, "yuv420p", color)
    copy_in_chunks(path, tmp_path / name, codec=codec, crf=4)
    assert error(tmp_path / name) <= 8


def test_the_full_range_stays_where_it_can_be_tagged(tmp_path: Path) -> None:
    path = bars(tmp_path, "yuv420p", (1, 1, 1, 2))
    for name, codec, wanted in ("a.mp4", "auto", 2), ("a.mov", "prores_ks", 1), ("a.mp4", "libx265", 2):
        copy_pictures(path, tmp_path / name, codec=codec)
        assert decoded(tmp_path / name)[0].color_range in (wanted, 0)
        assert error(tmp_path / name) <= 8


# -- transparency --


@pytest.mark.parametrize("pixels", ["bgra", "yuva420p", "yuva444p10le"])
@pytest.mark.parametrize(("name", "codec"), [("a.mov", "prores_ks"), ("a.mov", "qtrle"), ("a.mkv", "ffv1"),
                                             ("a.apng", "auto"), ("a.mov", "png")])
def test_transparency_is_kept(tmp_path: Path, pixels: str, name: str, codec: str) -> None:
    assert copy_in_chunks(half_clear(tmp_path, pixels), tmp_path / name, codec=codec) == []
    alpha = decoded(tmp_path / name)[0].reformat(format="rgba").to_ndarray()[..., 3]
    assert alpha[:, 2:28].max() == 0 and alpha[:, 36:].min() >= 253


def test_webm_keeps_transparency_where_that_is_asked_for(tmp_path: Path) -> None:
    copy_in_chunks(half_clear(tmp_path, "yuva420p"), tmp_path / "a.webm", 2, pixel_format="yuva420p")
    decoder: Any = CodecContext.create("libvpx-vp9", "r")
    with av.open(str(tmp_path / "a.webm")) as file:
        pictures = [picture for packet in file.demux(video=0) for picture in decoder.decode(packet)]
    assert [picture.format.name for picture in pictures] == ["yuva420p"] * 3


@pytest.mark.parametrize("pixels", ["bgra", "yuva420p", "yuva444p10le"])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "auto"), ("a.gif", "auto"), ("a.mkv", "libx265")])
def test_transparency_becomes_black_with_a_word(tmp_path: Path, pixels: str, name: str, codec: str) -> None:
    warning, = copy_in_chunks(half_clear(tmp_path, pixels), tmp_path / name, codec=codec, crf=4)
    assert "holds no transparency: it becomes black" in warning
    rgb = decoded(tmp_path / name)[0].to_ndarray(format="rgb24").astype(int)
    assert rgb[24, 8].max() <= 8 and rgb[24, 50, 0] >= 245 and rgb[24, 50, 1:].max() <= 12


@pytest.mark.parametrize("pixels", ["bgra", "yuva420p"])
def test_animated_webp_keeps_transparency(tmp_path: Path, pixels: str) -> None:
    """libwebp's lossy animations lose it where a whole side of the picture is clear."""
    copy_in_chunks(half_clear(tmp_path, pixels), tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as animation:
        alpha = np.asarray(animation.convert("RGBA"))[..., 3]
    assert alpha[:, 2:28].max() == 0 and alpha[:, 36:].min() == 255


def test_animated_webp_keeps_times_and_loops(tmp_path: Path) -> None:
    copy_in_chunks(make(tmp_path / "in.mp4", Clip(10, rate=Fraction(25), time_base=Fraction(1, 25))),
                   tmp_path / "a.webp", 4)
    with Image.open(tmp_path / "a.webp") as animation:
        shown: Any = animation
        assert (shown.n_frames, animation.info["loop"]) == (10, 0)
        times = []
        for number in range(10):
            animation.seek(number)
            animation.load()
            times.append(animation.info["duration"])
    assert times == [40] * 10


# -- HDR --


@pytest.mark.parametrize("color", [HLG, PQ])
@pytest.mark.parametrize(("name", "codec", "wanted"), [
    ("a.mp4", "auto", "hevc"), ("a.mov", "auto", "hevc"), ("a.mkv", "auto", "hevc"), ("a.webm", "auto", "av1"),
    ("a.mp4", "libsvtav1", "av1"), ("a.mov", "prores_ks", "prores"), ("a.mkv", "ffv1", "ffv1"),
])
def test_hdr_stays_hdr(tmp_path: Path, color: tuple[int, int, int, int], name: str, codec: str, wanted: str) -> None:
    assert copy_in_chunks(clip(tmp_path, "yuv420p10le", color), tmp_path / name, codec=codec) == []
    with av.open(str(tmp_path / name)) as file:
        assert wanted in file.streams.video[0].codec_context.name
        picture = next(file.decode(video=0))
    assert picture.format.components[0].bits >= 10
    assert tags(picture)[:3] == color[:3]


@pytest.mark.parametrize(("name", "settings"), [("a.mp4", {"codec": "libx264"}), ("a.gif", {}), ("a.avi", {}),
                                                ("a.mp4", {"sdr": True}), ("a.mkv", {"sdr": True, "codec": "ffv1"})])
def test_hdr_is_mapped_to_sdr_with_a_word(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    warning, = copy_in_chunks(clip(tmp_path, "yuv420p10le", HLG), tmp_path / name, **settings)
    assert warning.startswith("the HDR input is mapped to SDR (BT.709)")
    picture = decoded(tmp_path / name)[0]
    assert picture.color_trc != 18 and VideoFormat(picture.format.name).components[0].bits == 8


def test_apples_players_get_hevc_under_the_name_they_know(tmp_path: Path) -> None:
    path = clip(tmp_path, "yuv420p")
    for name in "a.mp4", "a.mov", "a.m4v":
        copy_in_chunks(path, tmp_path / name, codec="libx265")
        data = (tmp_path / name).read_bytes()
        assert b"hvc1" in data and b"hev1" not in data
