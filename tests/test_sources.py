"""Video sources: the clips are made here, with a number in each frame."""
from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from support.clips import Clip, irregular, make, marked, number_of, shuffled

from streamdream.errors import SourceError, UsageError
from streamdream.media.frame import Frame
from streamdream.media.input_container import ColorTags
from streamdream.media.sources.video import open_source


@pytest.fixture(scope="module")
def steady(folder: Path) -> str:
    """60 frames at 30/s, a key frame every 10, B-frames between."""
    return make(folder / "steady.mp4", Clip(60))


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.image) for frame in frames]


def read(name: str, **span: Any) -> list[Frame]:
    with open_source(name, **span) as source:
        return list(source)


# -- what a source says of itself, and its frames --


def test_open_source_gives_frames_and_facts(steady: str) -> None:
    with open_source(steady) as source:
        frames = list(source)
    assert (source.width, source.height, source.frame_count) == (64, 48, 60)
    assert source.rate == 30
    assert source.name == steady and source.pixel_aspect == 1 and source.warnings == []
    assert numbers(frames) == list(range(60))
    assert all(frame.image.flags.c_contiguous and frame.image.shape == (48, 64, 3) for frame in frames)
    assert [frame.pts * Fraction(*frame.time_base) for frame in frames] == [Fraction(n, 30) for n in range(60)]
    assert frames[45].pts_seconds == pytest.approx(1.5)
    assert source.last_duration == pytest.approx(1 / 30, abs=1e-3)


def test_a_source_gives_its_frames_once(steady: str) -> None:
    with open_source(steady) as source:
        assert len(list(source)) == 60
        assert list(source) == []


def test_importing_open_source_loads_neither_pyav_nor_opencv() -> None:
    """Neither PyAV nor OpenCV is loaded before it is needed."""
    modules = "streamdream.media.sources.video, streamdream.media.sinks.registry"
    code = f"import sys, {modules}; assert not {{'av', 'cv2'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "tick"), [("a.mp4", Fraction(1, 90000)), ("a.mov", Fraction(1, 90000)),
                                            ("a.mkv", Fraction(1, 1000))])
@pytest.mark.parametrize("first", [0, 54321])
def test_irregular_times_are_kept(tmp_path: Path, name: str, tick: Fraction, first: int) -> None:
    pts = irregular(60, 700, 9000, first)
    exact = {} if name == "a.mkv" else {"movie_timescale": "90000"}
    path = make(tmp_path / name, Clip(pts=pts, time_base=Fraction(1, 90000), last_ticks=3000, container_options=exact))
    with open_source(path) as source:
        frames = list(source)
    assert source.time_base == tick
    assert all(Fraction(*frame.time_base) == tick for frame in frames)
    wanted = [round(Fraction(time, 90000) / tick) for time in pts]
    assert [frame.pts for frame in frames] == pytest.approx(wanted, abs=0 if tick < Fraction(1, 1000) else 1)
    assert source.warnings == []


def test_last_frame_may_stay_long(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", Clip(10, last_ticks=90))
    with open_source(path) as source:
        assert len(list(source)) == 10
    assert float(source.last_duration) == pytest.approx(3, abs=0.002)


# -- a part of it --


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("start", [0.1, 0.35, 1.0, 1.9])
def test_a_start_is_exact_to_the_frame(folder: Path, name: str, start: float) -> None:
    """Also where seeking lands late: avi and ts have poor indexes."""
    path = folder / f"60{name}"
    options = {"crf": "4", "g": "10", "bf": "0" if name.endswith("avi") else "2"}
    if not path.exists():
        make(path, Clip(60, options=options))
    whole, part = read(str(path)), read(str(path), start=start)
    origin = whole[0].pts_seconds if name.endswith("ts") else 0
    expected = [frame for frame in whole if frame.pts_seconds - origin >= start - 1e-6]
    assert numbers(part) == numbers(expected)
    for frame, before in zip(part, expected, strict=True):
        assert frame.pts_seconds == pytest.approx(before.pts_seconds - origin - start, abs=0.02)
    assert part[0].pts >= 0


@pytest.mark.parametrize(("span", "first", "last"), [
    ({"start": 0.5, "duration": 0.5}, 15, 29),
    ({"start": 0.5, "end": 0.6}, 15, 17),
    ({"end": 0.1}, 0, 2),
    ({"start": 0.2, "duration": 5, "end": 0.3}, 6, 8),
    ({"start": 1.9, "end": 99}, 57, 59),
])
def test_a_span_gives_the_frames_within_it(steady: str, span: dict[str, Any], first: int, last: int) -> None:
    with open_source(steady, **span) as source:
        frames = list(source)
    assert numbers(frames) == list(range(first, last + 1))
    assert frames[0].pts == 0
    assert source.frame_count == len(frames)
    assert source.warnings == []
    assert float(source.last_duration) == pytest.approx(1 / 30, abs=1e-3)


def test_last_frame_ends_with_the_span(steady: str) -> None:
    with open_source(steady, end=0.11) as source:
        assert len(list(source)) == 4
    assert float(source.last_duration) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize(("span", "words"), [
    ({"start": 3}, "start at 3 s is beyond the end of .*steady.mp4, which lasts 2 s"),
    ({"start": 1.97}, r"steady.mp4 has no frame at or after 1.97 s; its last one is at 1.967 s"),
    ({"start": 1, "end": 0.5}, "nothing lies between"),
    ({"start": 1, "duration": 0}, "nothing lies between"),
])
def test_a_span_that_cannot_be_is_refused(steady: str, span: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_source(steady, **span)


def test_a_transport_stream_starts_at_zero(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ts", Clip(pts=range(3000, 3030)))
    with av.open(path) as file:
        assert file.start_time > 90_000_000
    assert 0 <= read(path)[0].pts_seconds < 0.2
    assert len(read(path, start=0.5)) < 30


# -- how it looks --


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_a_rotated_file_is_turned_upright(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:24, :32], corner[:24, 32:], corner[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    clip = Clip(2, pixels="yuv444p", rotation=(degrees, *flips))
    path = make(tmp_path / "a.mp4", clip, [corner, corner])
    upright = np.rot90(corner, degrees // 90)
    upright = upright[:, ::-1] if flips[0] else upright
    upright = upright[::-1] if flips[1] else upright
    with open_source(path) as source:
        frame = next(iter(source))
    assert (source.height, source.width) == upright.shape[:2] == frame.image.shape[:2]
    assert frame.image.flags.c_contiguous
    assert np.abs(frame.image.astype(int) - upright).mean() < 8


def test_aspect_turns_with_the_picture(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", Clip(2, aspect=Fraction(16, 11), rotation=(90, False, False)))
    with open_source(path) as source:
        assert source.pixel_aspect == Fraction(11, 16)


BT601, BT709, FULL709 = (6, 6, 6, 1), (1, 1, 1, 1), (1, 1, 1, 2)


@pytest.mark.parametrize(("tags", "tagged", "size", "pixels"), [
    (BT601, True, (64, 48), "yuv444p"),
    (BT709, True, (64, 48), "yuv444p"),
    (FULL709, True, (64, 48), "yuv444p"),
    ((9, 9, 14, 1), True, (64, 48), "yuv420p10le"),
    (BT601, False, (64, 48), "yuv444p"),
    (BT709, False, (128, 720), "yuv444p"),
])
def test_colour_tags_are_converted_as_they_say(tmp_path: Path, tags: tuple[int, int, int, int], tagged: bool,
                                               size: tuple[int, int], pixels: str) -> None:
    """Pure colours show the wrong matrix (by 20 and more) or range (by 16) at once."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    for number, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 90, 30)]):
        image[:, number * width // 4: (number + 1) * width // 4] = color
    clip = Clip(1, size, pixels=pixels, color=tags, tagged=tagged)
    path = make(tmp_path / "a.mp4", clip, [image])
    with open_source(path) as source:
        frame = next(iter(source))
    assert source.color == ColorTags(*tags, tagged=tagged)
    center = frame.image[height // 2, width // 8:: width // 4].astype(int)
    assert np.abs(center - image[0, width // 8:: width // 4]).max() <= 4


@pytest.mark.parametrize(("codec", "name", "pixels"), [
    ("mjpeg", "a.avi", "yuvj420p"), ("ffv1", "a.mkv", "yuva420p"), ("ffv1", "a.mkv", "bgra"), ("gif", "a.gif", "rgb8"),
    ("ffv1", "a.mkv", "yuv420p10le"), ("libx264", "a.mkv", "gray"), ("prores_ks", "a.mov", "yuv422p10le"),
    ("apng", "a.apng", "rgba"),
])
def test_every_pixel_format_becomes_rgb(tmp_path: Path, codec: str, name: str, pixels: str) -> None:
    path = make(tmp_path / name, Clip(4, codec=codec, pixels=pixels))
    frames = read(path)
    assert numbers(frames) == [0, 1, 2, 3]
    grey = frames[3].image[2, 2].astype(int)  # 128, which rgb8 does not have
    assert np.abs(grey - 128).max() <= (50 if pixels == "rgb8" else 3)


def test_palette_and_grey_pictures_are_exact(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(2, 0).repeat(2, 1)
    cv2.imwrite(str(tmp_path / "grey.png"), ramp)
    assert np.array_equal(read(str(tmp_path / "grey.png"))[0].image, np.stack([ramp] * 3, -1))


def test_grey_video_is_full_range(tmp_path: Path) -> None:
    light = np.full((48, 64, 3), 200, np.uint8)
    path = make(tmp_path / "a.mkv", Clip(1, codec="ffv1", pixels="gray"), [light])
    assert np.abs(read(path)[0].image.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".tif", ".webp", ".bmp", ".ppm"])
def test_a_picture_file_is_a_source_of_one_frame(tmp_path: Path, suffix: str) -> None:
    """FFmpeg took most JPEGs for sequences ("damaged, or not a video"), and PyAV 18 failed on TIFF's side data."""
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 3)
    path = str(tmp_path / f"a{suffix}")
    cv2.imwrite(path, image)
    assert [frame.image.shape for frame in read(path)] == [(200, 300, 3)]
    with pytest.raises(UsageError, match="is a single picture: it has no frame at 1 s"):
        open_source(path, start=1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    upright = np.rot90(image, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    frame = read(str(tmp_path / "a.jpg"))[0]
    assert frame.image.shape == upright.shape and np.abs(frame.image.astype(int) - upright).mean() < 8


def test_size_changes_are_evened_out(tmp_path: Path) -> None:
    first, second = (Path(make(tmp_path / f"{n}.h264", Clip(5, size), [marked(n, size)] * 5))
                     for n, size in ((170, (64, 48)), (85, (96, 64))))
    path = tmp_path / "a.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_source(str(path)) as source:
        frames = list(source)
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert numbers(frames) == [170] * 5 + [85] * 5
    assert len(source.warnings) == 1 and "changes its size" in source.warnings[0]


def test_frames_without_times_get_some(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h264", Clip(20))
    frames = read(path)
    assert numbers(frames) == list(range(20))
    gaps = np.diff([frame.pts_seconds for frame in frames])
    assert gaps == pytest.approx([gaps[0]] * 19) and gaps[0] > 0
    assert numbers(read(path, start=frames[10].pts_seconds)) == list(range(10, 20))


@pytest.mark.parametrize(("pts", "expected"), [
    ([0, 40, 80, 80, 120], [0, 40, 80, 81, 120]),
    ([0, 40, 80, 60, 120], [0, 40, 80, 81, 120]),
    ([5000, 5040, 5080, 0, 40], [5000, 5040, 5080, 5120, 5160]),
])
def test_backward_times_are_repaired(tmp_path: Path, pts: list[int], expected: list[int]) -> None:
    path = shuffled(tmp_path / "a.mkv", pts)
    with open_source(path) as source:
        frames = list(source)
    assert [frame.pts for frame in frames] == expected
    assert numbers(frames) == list(range(5))
    assert len(source.warnings) == 1 and "backwards" in source.warnings[0]


# -- other kinds --


def test_a_lavfi_graph_is_a_source() -> None:
    with open_source("lavfi:testsrc2=size=64x48:rate=30000/1001", duration=1) as source:
        frames = list(source)
    assert source.rate == Fraction(30000, 1001) and source.frame_count == 30
    assert len(frames) == 30 and frames[0].image.shape == (48, 64, 3)
    assert len(read("lavfi:testsrc2=size=64x48:rate=10:duration=2", start=1)) == 10


def test_endless_sources_do_not_know_their_length() -> None:
    with open_source("lavfi:testsrc2=size=64x48") as source:
        assert source.frame_count == 0


@pytest.mark.parametrize("graph", ["nosuchfilter=1", "testsrc2=size=64x48,nosuch"])
def test_a_lavfi_graph_that_is_wrong_is_one_line(graph: str) -> None:
    with pytest.raises(UsageError, match="not a filter graph: lavfi:"):
        open_source(f"lavfi:{graph}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.mp4", "nosuch://host/a"])
def test_a_url_that_nobody_serves_is_one_line(url: str) -> None:
    with pytest.raises(SourceError, match=f"cannot open {url}"):
        open_source(url)


@pytest.mark.parametrize(("pattern", "first"), [("i%04d.png", 0), ("i%d.png", 7), ("i%03d.jpg", 120)])
def test_an_image_sequence_is_a_source(tmp_path: Path, pattern: str, first: int) -> None:
    for number in range(first, first + 5):
        cv2.imwrite(str(tmp_path / (pattern % number)), marked(number))
    with open_source(str(tmp_path / pattern)) as source:
        assert source.rate == 25
        assert numbers(list(source)) == list(range(first, first + 5))
    assert source.warnings == []
    assert numbers(read(str(tmp_path / pattern), start=0.08)) == list(range(first + 2, first + 5))


def test_sequence_with_a_gap(tmp_path: Path) -> None:
    for number in (1, 2, 3, 5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), marked(number))
    with open_source(str(tmp_path / "%d.png")) as source:
        assert numbers(list(source)) == [1, 2, 3, 5]
    assert len(source.warnings) == 1 and "no picture has the number 4; the 4 others" in source.warnings[0]


def test_an_image_sequence_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures match"):
        open_source(str(tmp_path / "%d.png"))


def test_a_file_may_look_like_a_pattern(tmp_path: Path) -> None:
    assert len(read(make(tmp_path / "100%d.mp4", Clip(3)))) == 3
