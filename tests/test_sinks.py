"""Sinks through their public door: one contract for all of them, then what only files have."""
from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import Clip, add_cover, irregular, make, marked, mux_cover, number_of, packets
from numpy.typing import NDArray

from streamdream.errors import SinkError, StreamdreamError, UnknownName, UsageError
from streamdream.frame import Frame
from streamdream.settings import RenderSettings
from streamdream.sinks import NullSink, Sink, open_sink
from streamdream.sources import Source, open_source, prefetch

NAMES = ["a.mp4", "a.m4v", "a.mov", "a.mkv", "a.webm", "a.avi", "a.gif", "%04d.png", "f_%d.jpg"]
FILES = NAMES[:7]
NOBODY = 65534


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> str:
    """20 silent frames at 25/s."""
    return make(folder / "clip.mp4", Clip(20, rate=Fraction(25), time_base=Fraction(1, 25)))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("streamdream")] == []


def copy(name: str, path: Path | str, settings: RenderSettings | None = None, overwrite: bool = False,
         sound: bool = True) -> Sink:
    """Renders ``name`` to ``path`` without a dream."""
    settings = settings or RenderSettings()
    with open_source(name, settings.start, settings.duration, settings.end) as source:
        sink = open_sink(str(path), source, settings, overwrite, name if sound else None)
        with sink:
            for frame in prefetch(source):
                sink.write(frame.image, frame)
    return sink


def read(path: Path | str) -> list[Frame]:
    with open_source(str(path)) as source:
        frames = list(source)
    assert source.warnings == []
    return frames


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- the contract of all sinks --


@pytest.mark.parametrize("name", NAMES)
def test_frames_come_back(tmp_path: Path, clip: str, name: str) -> None:
    sink = copy(clip, tmp_path / name)
    assert sink.warnings == []
    frames = read(tmp_path / name)
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.pts_seconds for frame in frames] == pytest.approx([n / 25 for n in range(20)])
    on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sink.bytes_written == on_disk > 0


def begin(name: str, path: Path, count: int, overwrite: bool = False) -> Sink:
    """A sink with ``count`` frames in it."""
    with open_source(name) as source:
        sink = open_sink(str(path), source, RenderSettings(), overwrite, name)
        for _, frame in zip(range(count), source, strict=False):
            assert all(found.startswith(".") and ".partial" in found for found in names(path.parent)) or overwrite
            sink.write(frame.image, frame)
    return sink


@pytest.mark.parametrize("name", NAMES)
def test_nothing_appears_before_it_is_whole(tmp_path: Path, clip: str, name: str) -> None:
    sink = begin(clip, tmp_path / name, 20)
    assert [found.startswith(".") and ".partial" in found for found in names(tmp_path)] == [True]
    sink.finish()
    assert len(read(tmp_path / name)) == 20
    assert not any(found.startswith(".") for found in names(tmp_path))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 20])
def test_abort_leaves_nothing(tmp_path: Path, clip: str, name: str, count: int) -> None:
    sink = begin(clip, tmp_path / name, count)
    sink.abort()
    assert names(tmp_path) == []
    sink.abort()
    sink.finish()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_abort_after_finish_keeps_the_output(tmp_path: Path, clip: str, name: str) -> None:
    sink = copy(clip, tmp_path / name)
    before = names(tmp_path)
    sink.abort()
    sink.finish()
    assert names(tmp_path) == before
    with open_source(clip) as source, pytest.raises(SinkError, match="is closed"):
        sink.write(np.zeros((48, 64, 3), np.uint8), next(iter(source)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_aborts(tmp_path: Path, clip: str, name: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_source(clip) as source, \
            open_sink(str(tmp_path / name), source, RenderSettings(), False, clip) as sink:
        for frame in source:
            sink.write(frame.image, frame)
            raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_exists_is_kept(tmp_path: Path, clip: str, name: str) -> None:
    copy(clip, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="exists; -y overwrites it"):
        copy(clip, tmp_path / name)
    begin(clip, tmp_path / name, 5, overwrite=True).abort()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    copy(clip, tmp_path / name, RenderSettings(start=0.4), overwrite=True)
    assert before != {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_written_is_an_error(tmp_path: Path, clip: str, name: str) -> None:
    with open_source(clip) as source, pytest.raises(SinkError, match="no frame was written"), \
            open_sink(str(tmp_path / name), source, RenderSettings(), False, clip):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_caller_may_reuse_its_picture(tmp_path: Path, clip: str, name: str) -> None:
    image = np.empty((48, 64, 3), np.uint8)
    with open_source(clip) as source, open_sink(str(tmp_path / name), source, RenderSettings()) as sink:
        for number, frame in enumerate(source):
            image[:] = marked(255 - number)
            sink.write(image, frame)
            image[:] = 0
    assert [number_of(frame.image) for frame in read(tmp_path / name)] == list(range(255, 235, -1))


def test_null_sink(clip: str) -> None:
    with open_source(clip) as source, open_sink("null", source, RenderSettings()) as sink:
        for frame in source:
            sink.write(frame.image, frame)
    assert isinstance(sink, NullSink) and sink.bytes_written == 0


# -- wrong orders --


@pytest.mark.parametrize(("path", "words"), [
    ("a.xyz", r"must end in \.mp4, .*\.gif, or a pattern"), ("a", "must end in"), ("a.png", "or a pattern such as"),
    ("nowhere/a.mp4", "no such folder: .*nowhere"), ("nowhere/%d.png", "no such folder"),
])
def test_wrong_path(tmp_path: Path, clip: str, path: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        copy(clip, tmp_path / path)
    assert "\n" not in str(caught.value) and names(tmp_path) == []


def test_a_folder_is_no_output(tmp_path: Path, clip: str) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        copy(clip, tmp_path / "a.mp4", overwrite=True)


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_output_is_not_the_input(tmp_path: Path, clip: str, link: str) -> None:
    path = tmp_path / "in.mp4"
    path.write_bytes(Path(clip).read_bytes())
    output = path if link == "same" else tmp_path / "out.mp4"
    if link == "symbolic":
        output.symlink_to(path)
    elif link == "hard":
        output.hardlink_to(path)
    with pytest.raises(UsageError, match="is the input itself"):
        copy(str(path), output, overwrite=True)
    assert path.read_bytes() == Path(clip).read_bytes()


def test_a_link_is_written_where_it_points(tmp_path: Path, clip: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    copy(clip, tmp_path / "link.mp4")
    assert (tmp_path / "link.mp4").is_symlink() and names(tmp_path / "real") == ["a.mp4"]


@pytest.mark.parametrize(("name", "settings", "error", "words"), [
    ("a.mp4", {"codec": "libx246"}, UnknownName, "unknown encoder 'libx246'; did you mean .*libx264"),
    ("a.mp4", {"codec": "h265"}, UnknownName, "unknown encoder 'h265'"),
    ("a.mp4", {"codec": "aac"}, UsageError, "aac is an encoder for audio"),
    ("a.webm", {"codec": "libx264"}, UsageError, r"\.webm cannot hold libx264; it takes .*libvpx-vp9"),
    ("a.mp4", {"encoder_preset": "slowish"}, UnknownName, "unknown preset of libx264 'slowish'; did you mean slow"),
    ("a.mp4", {"codec": "libsvtav1", "encoder_preset": "slow"}, UsageError, "libsvtav1 refuses this: 64x48 yuv420p"),
])
def test_wrong_encoder(tmp_path: Path, clip: str, capfd: pytest.CaptureFixture[str], name: str,
                       settings: dict[str, Any], error: type[StreamdreamError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        copy(clip, tmp_path / name, RenderSettings(**settings))
    assert "\n" not in str(caught.value) and names(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_an_encoder_without_its_hardware(tmp_path: Path, clip: str) -> None:
    try:
        copy(clip, tmp_path / "a.mp4", RenderSettings(codec="h264_nvenc"))
    except SinkError as error:
        assert str(error).startswith("h264_nvenc cannot run here (")
        assert str(error).endswith("; -c:v libx264 can") and names(tmp_path) == []
    else:
        pytest.skip("there is hardware for it")


# -- encoders --


@pytest.mark.parametrize(("name", "codec"), [
    ("a.mp4", "libx265"), ("a.mp4", "libsvtav1"), ("a.mp4", "mpeg4"), ("a.mkv", "libx264"), ("a.mkv", "libvpx"),
    ("a.mkv", "mjpeg"), ("a.mov", "prores_ks"), ("a.avi", "libx264"), ("a.avi", "mjpeg"), ("a.mp4", "h264"),
    ("a.mkv", "mpeg2video"),
])
def test_encoders(tmp_path: Path, clip: str, capfd: pytest.CaptureFixture[str], name: str, codec: str) -> None:
    copy(clip, tmp_path / name, RenderSettings(codec=codec))
    frames = read(tmp_path / name)
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    # FFmpeg takes the first frame of H.264 in AVI to be one frame late.
    first = 0.04 if (name, codec) == ("a.avi", "libx264") else 0
    assert [frame.pts_seconds for frame in frames] == pytest.approx([first + n / 25 for n in range(20)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler") or os.geteuid() != 0,
                    reason="it takes liberties with root only")
@pytest.mark.parametrize("codec", ["libsvtav1", "libx265"])
def test_no_encoder_makes_a_realtime_process_of_this_one(tmp_path: Path, clip: str, codec: str) -> None:
    """SVT-AV1 would, all of it: neither this thread nor those of the encoder are."""
    with open_source(clip) as source, open_sink(str(tmp_path / "a.mp4"), source, RenderSettings(codec=codec)) as sink:
        for frame in source:
            sink.write(frame.image, frame)
        tasks = [int(path.name) for path in Path("/proc/self/task").iterdir()]
        assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "ffv1"), ("a.mkv", "libx264rgb"),
                                             ("a.mov", "png"), ("a.mov", "qtrle"), ("a.avi", "utvideo")])
def test_lossless_is_lossless(tmp_path: Path, clip: str, name: str, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    with open_source(clip) as source, \
            open_sink(str(tmp_path / name), source, RenderSettings(codec=codec, crf=0)) as sink:
        for image, frame in zip(noise, source, strict=False):
            sink.write(image, frame)
    assert all(np.array_equal(frame.image, image) for frame, image in zip(read(tmp_path / name), noise, strict=True))


def test_png_sequence_is_lossless(tmp_path: Path, clip: str) -> None:
    copy(clip, tmp_path / "%04d.png")
    assert names(tmp_path) == [f"{number:04d}.png" for number in range(1, 21)]
    wanted = read(clip)
    for frame, name in zip(wanted, names(tmp_path), strict=True):
        stored = cv2.imread(str(tmp_path / name))
        assert stored is not None and np.array_equal(frame.image, stored[..., ::-1])


def test_older_pictures_are_named(tmp_path: Path, clip: str) -> None:
    copy(clip, tmp_path / "%d.png")
    sink = copy(clip, tmp_path / "%d.png", RenderSettings(duration=0.2), overwrite=True)
    assert len(names(tmp_path)) == 20
    assert sink.warnings == [f"15 older pictures of {tmp_path / '%d.png'} remain behind the new ones"]


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("libx265", "a.mp4"), ("libvpx-vp9", "a.webm"),
                                             ("mpeg4", "a.avi")])
def test_crf(tmp_path: Path, clip: str, codec: str, name: str) -> None:
    sizes = []
    for crf in (2, 63):
        with open_source(clip) as source:
            sink = open_sink(str(tmp_path / f"{crf}{name}"), source, RenderSettings(codec=codec, crf=crf))
            noise(source, sink)
        sizes.append(sink.bytes_written)
    assert sizes[0] > 1.5 * sizes[1]


def test_encoder_preset(tmp_path: Path, clip: str) -> None:
    for preset in ("auto", "ultrafast", "veryslow"):
        copy(clip, tmp_path / f"{preset}.mp4", RenderSettings(encoder_preset=preset))
    found = {preset: (tmp_path / f"{preset}.mp4").read_bytes() for preset in ("auto", "ultrafast", "veryslow")}
    assert b"subme=2 " in found["auto"]  # x264 writes its settings into the stream: this is veryfast
    assert b"subme=0 " in found["ultrafast"] and b"subme=10 " in found["veryslow"]
    sink = copy(clip, tmp_path / "a.mkv", RenderSettings(codec="ffv1", encoder_preset="slow"))
    assert sink.warnings == ["ffv1 has no presets; 'slow' was not used"]


@pytest.mark.parametrize(("name", "size"), [("a.mp4", (66, 50)), ("a.mkv", (66, 50)), ("a.webm", (65, 49)),
                                            ("a.avi", (65, 49)), ("a.gif", (65, 49)), ("%d.png", (65, 49))])
def test_odd_sizes(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = make(tmp_path / "in.mkv", Clip(5, (65, 49), codec="ffv1", pixels="bgr0"))
    (tmp_path / "out").mkdir()
    sink = copy(path, tmp_path / "out" / name)
    frames = read(tmp_path / "out" / name)
    assert [number_of(frame.image) for frame in frames] == list(range(5))
    assert (frames[0].width, frames[0].height) == size
    padded = size != (65, 49)
    assert len(sink.warnings) == padded
    if padded:
        assert "even" in sink.warnings[0]
        edge = frames[0].image.astype(int)
        assert np.abs(edge[:, -1] - edge[:, -2]).mean() < 4 and np.abs(edge[-1] - edge[-2]).mean() < 4


def test_pictures_of_another_size_are_refused(tmp_path: Path, clip: str) -> None:
    with pytest.raises(ValueError, match="takes pictures of 64x48"), open_source(clip) as source, \
            open_sink(str(tmp_path / "a.mp4"), source, RenderSettings()) as sink:
        sink.write(np.zeros((32, 32, 3), np.uint8), next(iter(source)))
    assert names(tmp_path) == []


# -- time --


@pytest.mark.parametrize(("name", "allowed"), [("a.mp4", 0), ("a.mov", 0), ("a.mkv", 0.0005), ("a.webm", 0.0005)])
@pytest.mark.parametrize("first", [0, 12345])
@pytest.mark.parametrize("sound", [False, True])
def test_irregular_times_are_kept(folder: Path, tmp_path: Path, name: str, allowed: float, first: int,
                                  sound: bool) -> None:
    pts = irregular(60, 700, 6000, first)
    path = folder / f"irregular{first}{sound}.mp4"
    if not path.exists():
        make(path, Clip(pts=pts, time_base=Fraction(1, 90000), last_ticks=9000, audio="aac" if sound else None,
                        container_options={"movie_timescale": "90000"}))
    copy(str(path), tmp_path / name)
    wanted, got = read(path), read(tmp_path / name)
    assert [float(time) for time in np.array(pts) / 90000] == pytest.approx([f.pts_seconds for f in wanted])
    assert len(got) == 60
    assert max(abs(a.pts_seconds - b.pts_seconds) for a, b in zip(wanted, got, strict=True)) <= allowed + 1e-9


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif"])
@pytest.mark.parametrize("last", [1, 75])
def test_length_is_kept(tmp_path: Path, name: str, last: int) -> None:
    path = make(tmp_path / "in.mkv", Clip(20, last_ticks=last, rate=Fraction(25), time_base=Fraction(1, 25)))
    copy(path, tmp_path / name)
    copy(str(tmp_path / name), tmp_path / "again.mkv")
    for made in (name, "again.mkv"):
        with av.open(str(tmp_path / made)) as file:
            assert (file.duration or 0) / 1e6 == pytest.approx((19 + last) / 25, abs=0.02)


@pytest.mark.parametrize("name", ["a.avi", "a.gif"])
def test_what_cannot_start_late_shows_the_first_frame_from_the_start(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "in.mkv", Clip(pts=range(10, 20), rate=Fraction(25), time_base=Fraction(1, 25)))
    copy(path, tmp_path / name)
    times = [frame.pts_seconds for frame in read(tmp_path / name)]
    assert times == pytest.approx([0, *(n / 25 for n in range(11, 20))])


def test_avi_says_when_times_move(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(pts=irregular(40, 700, 9000), time_base=Fraction(1, 90000)))
    sink = copy(path, tmp_path / "a.avi")
    assert len(read(tmp_path / "a.avi")) == 40
    assert len(sink.warnings) == 1 and ".mkv and .mp4 keep them" in sink.warnings[0]


# -- colour --


def chart(height: int) -> NDArray[np.uint8]:
    """Flat colours above, ramps below."""
    image = np.empty((height, 128, 3), np.uint8)
    for number, color in enumerate([(230, 20, 20), (20, 200, 40), (30, 40, 220), (240, 230, 30), (250, 250, 250),
                                    (5, 5, 5), (128, 60, 190), (10, 180, 180)]):
        image[: height // 2, number * 16: number * 16 + 16] = color
    image[height // 2:] = np.linspace(20, 235, 128)[:, None] * (1, 0.8, 0.6) + (0, 10, 40)
    return image


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
@pytest.mark.parametrize(("tags", "height"), [((6, 6, 6, 1), 64), ((1, 1, 1, 1), 64), ((1, 1, 1, 2), 64),
                                              ((5, 5, 6, 1), 64), ((9, 9, 16, 1), 64), (None, 64), (None, 720)])
def test_colors_are_kept(tmp_path: Path, name: str, tags: tuple[int, int, int, int] | None, height: int) -> None:
    """To a decoder that goes by the tags, and to our own, which assumes the same as players where there are none."""
    image = chart(height)
    path = make(tmp_path / "in.mp4", Clip(3, (128, height), pixels="yuv444p", color=tags), [image] * 3)
    with open_source(path) as source:
        copy(path, tmp_path / name, RenderSettings(crf=0))
        output = open_source(str(tmp_path / name))
        with open_sink(str(tmp_path / f"x{name}"), source, RenderSettings(crf=0)) as sink:
            for frame in source:
                sink.write(image, frame)
    with output:
        assert name == "a.avi" or output.color == source.color
    decoded: list[Any] = [read(tmp_path / f"x{name}")[1].image]
    if name != "a.avi":
        with av.open(str(tmp_path / f"x{name}")) as file:
            decoded.append(next(file.decode(video=0)).to_ndarray(format="rgb24"))
    for picture in decoded:
        difference = np.abs(picture.astype(int) - image)
        inside = [x for x in range(128) if 4 <= x % 16 < 12]  # colour at half size blurs the borders
        allowed = 6 if name == "a.avi" else 3  # MPEG-4 is lossy even at its best; the wrong matrix is 20 and more
        assert difference[4: height // 2 - 4, inside].max() <= allowed
        assert difference[height // 2 + 4: -4].max() <= allowed


def test_aspect_is_kept(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(3, aspect=Fraction(16, 11)))
    for name in ("a.mp4", "a.mkv"):
        copy(path, tmp_path / name)
        with open_source(str(tmp_path / name)) as source:
            assert source.pixel_aspect == Fraction(16, 11)


def test_rotation_is_baked_in(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(3, rotation=(90, False, False)))
    copy(path, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        picture = next(file.decode(video=0))
    assert (picture.width, picture.height, picture.rotation) == (48, 64, 0)
    upright = np.rot90(marked(0)).astype(int)
    assert np.abs(picture.to_ndarray(format="rgb24") - upright).mean() < 4


# -- what is copied --


FULL = Clip(30, audio="aac", audio_seconds=1.2, language="deu", metadata={"title": "Traum", "artist": "Fée"},
            chapters=((0, 400, "one"), (400, 1000, "two")))


@pytest.fixture(scope="module")
def full(folder: Path) -> dict[str, str]:
    """One second of picture with everything, as mp4 and mkv."""
    rich = Clip(**{**vars(FULL), "subtitles": ((100, 300, "hello"), (500, 900, "world")), "attachment": b"font" * 50,
                   "container_options": {"avoid_negative_ts": "disabled"}})
    return {"mp4": make(folder / "full.mp4", FULL), "mkv": make(folder / "full.mkv", rich)}


def chapters(file: Any) -> list[tuple[float, float]]:
    return [(float(chapter["start"] * chapter["time_base"]), float(chapter["end"] * chapter["time_base"]))
            for chapter in file.chapters()]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_sound_is_untouched(tmp_path: Path, full: dict[str, str], kind: str, name: str) -> None:
    copy(full[kind], tmp_path / name)
    before, after = packets(full[kind]), packets(str(tmp_path / name))
    assert [data for _, data in before] == [data for _, data in after] and len(before) > 50
    if name != "a.avi":  # which has no time for sound
        assert max(abs(a - b) for (a, _), (b, _) in zip(before, after, strict=True)) <= Fraction(1, 1000)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_chapters_and_metadata(tmp_path: Path, full: dict[str, str], name: str) -> None:
    copy(full["mp4"], tmp_path / name)
    with av.open(str(tmp_path / name)) as file:
        assert {key.lower(): file.metadata[key] for key in file.metadata}.items() >= FULL.metadata.items()
        assert chapters(file) == [(0, 0.4), (0.4, 1)]
        assert [chapter["metadata"]["title"] for chapter in file.chapters()] == ["one", "two"]
        if name != "a.mov":  # QuickTime knows only numbered languages
            assert [stream.language for stream in (*file.streams.video, *file.streams.audio)] == ["deu", "deu"]
        sound = file.streams.audio[0]
        assert "the sound" in (sound.metadata.get("title"), sound.metadata.get("name"))


def test_dispositions(tmp_path: Path) -> None:
    path = str(tmp_path / "in.mkv")
    make(tmp_path / "made.mkv", Clip(5, audio="aac"))
    with av.open(str(tmp_path / "made.mkv")) as file, av.open(path, "w") as output:
        twins = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in file.streams}
        twins[1].disposition = av.stream.Disposition.hearing_impaired
        for packet in file.demux():
            if packet.size:
                packet.stream = twins[packet.stream_index]
                output.mux(packet)
    copy(path, tmp_path / "a.mkv")
    with av.open(str(tmp_path / "a.mkv")) as file:
        assert file.streams.audio[0].disposition & av.stream.Disposition.hearing_impaired


def test_subtitles_and_attachments(tmp_path: Path, full: dict[str, str]) -> None:
    sink = copy(full["mkv"], tmp_path / "a.mkv")
    assert sink.warnings == []
    assert packets(str(tmp_path / "a.mkv"), "subtitle") == packets(full["mkv"], "subtitle")
    assert len(packets(full["mkv"], "subtitle")) == 2
    with av.open(str(tmp_path / "a.mkv")) as file:
        font = file.streams.attachments[0]
        assert (font.name, font.data) == ("font.ttf", b"font" * 50)


@pytest.mark.parametrize(("name", "lost"), [("a.mp4", ["subtitle srt", "attachment font.ttf"]),
                                            ("a.webm", ["audio aac, deu", "subtitle srt", "attachment font.ttf"]),
                                            ("a.gif", ["audio aac, deu", "subtitle srt", "attachment font.ttf"])])
def test_what_a_container_cannot_hold_is_named(tmp_path: Path, full: dict[str, str], name: str,
                                               lost: list[str]) -> None:
    sink = copy(full["mkv"], tmp_path / name)
    assert len(read(tmp_path / name)) == 30
    assert len(sink.warnings) == len(lost)
    for line, what in zip(sink.warnings, lost, strict=True):
        assert f"({what})" in line and "cannot hold stream" in line and line.endswith("it is left out")


def test_raw_sound_into_webm(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mkv", Clip(5, audio="pcm_s16le"))
    assert "(audio pcm_s16le)" in copy(path, tmp_path / "a.webm").warnings[0]
    assert copy(path, tmp_path / "a.mov").warnings == []
    joined = (b"".join(data for _, data in packets(str(name))) for name in (path, tmp_path / "a.mov"))
    assert len({*joined}) == 1


def test_opus_into_webm(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mkv", Clip(20, audio="libopus"))
    assert copy(path, tmp_path / "a.webm").warnings == []
    assert packets(str(tmp_path / "a.webm")) == packets(path)
    assert [f.pts for f in read(tmp_path / "a.webm")] == [f.pts for f in read(path)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("span", [{"start": 0.5}, {"start": 0.3, "duration": 0.4}, {"end": 0.6}])
def test_a_part_is_cut_out(tmp_path: Path, full: dict[str, str], name: str, kind: str, span: dict[str, Any]) -> None:
    copy(full[kind], tmp_path / name, RenderSettings(**span))
    start = span.get("start", 0)
    end = min(start + span.get("duration", 9), span.get("end", 9))
    inside = [(float(time) - start, data) for time, data in packets(full[kind])
              if (time >= start or not start) and time < end]
    after = packets(str(tmp_path / name))
    assert [data for _, data in after] == [data for _, data in inside]
    assert [float(time) for time, _ in after] == pytest.approx([time for time, _ in inside], abs=0.0011)
    frames = read(tmp_path / name)
    assert frames[0].pts == 0 and frames[-1].pts_seconds < end - start
    with av.open(str(tmp_path / name)) as file:
        found = chapters(file)
    wanted = [(max(a - start, 0), min(b, end) - start) for a, b in ((0, 0.4), (0.4, 1)) if b > start and a < end]
    assert found == [pytest.approx(pair, abs=0.002) for pair in wanted]


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    """So that players need not look far ahead; and so that nothing is kept in memory."""
    clip = Clip(80, rate=Fraction(5), time_base=Fraction(1, 5), audio="aac", audio_seconds=16)
    copy(make(tmp_path / "in.mp4", clip), tmp_path / "a.mkv")
    latest = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "a.mkv")) as file:
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                latest[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(latest["video"] - latest["audio"]) < 1.5


def test_sound_of_a_transport_stream(tmp_path: Path) -> None:
    """Its AAC packets carry a header of 7 bytes each, which other containers keep once."""
    path = make(tmp_path / "in.ts", Clip(30, audio="aac"))
    for name in ("a.mp4", "a.mkv"):
        assert copy(path, tmp_path / name).warnings == []
        before, after = packets(path), packets(str(tmp_path / name))
        assert [data[7:] for _, data in before] == [data for _, data in after]
        with av.open(path) as file:
            start = Fraction(file.start_time or 0, 1_000_000)
        assert float(after[0][0]) == pytest.approx(float(before[0][0] - start), abs=0.001)


def test_longer_sound_is_kept_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(5, audio="aac", audio_seconds=1.5))
    copy(path, tmp_path / "a.mp4")
    assert packets(str(tmp_path / "a.mp4")) == packets(path)


@pytest.mark.parametrize(("name", "kept"), [("a.mp4", True), ("a.m4v", True), ("a.mkv", True), ("a.mov", False),
                                            ("a.avi", False), ("a.webm", False)])
def test_covers_are_kept_or_named(tmp_path: Path, name: str, kept: bool) -> None:
    path = str(tmp_path / "in.mp4")
    make(tmp_path / "made.mp4", Clip(5))
    with av.open(str(tmp_path / "made.mp4")) as file, av.open(path, "w") as output:
        video = output.add_stream_from_template(file.streams.video[0], opaque=True)
        cover = add_cover(output)
        mux_cover(output, cover)
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
    sink = copy(path, tmp_path / name)
    assert [number_of(frame.image) for frame in read(tmp_path / name)] == list(range(5))
    with av.open(str(tmp_path / name)) as file:
        covers = [stream for stream in file.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
        assert len(file.streams.video) == 1 + kept
        for cover in covers:
            assert (next(file.decode(cover)).to_ndarray(format="rgb24") == 77).all()
    assert (len(covers), len(sink.warnings)) == (kept, not kept)


def test_a_second_video_is_left_out(tmp_path: Path) -> None:
    first, path = make(tmp_path / "made.mkv", Clip(5)), str(tmp_path / "in.mkv")
    with av.open(first) as file, av.open(path, "w") as output:
        twins = [output.add_stream_from_template(file.streams.video[0], opaque=True) for _ in range(2)]
        for packet in file.demux(video=0):
            for twin in twins if packet.size else ():
                packet.stream = twin
                output.mux(packet)
    assert "(video h264)" in copy(path, tmp_path / "a.mkv").warnings[0]


def test_the_index_comes_first(tmp_path: Path, full: dict[str, str]) -> None:
    for name in ("a.mp4", "a.mov", "a.m4v"):
        copy(full["mp4"], tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")


# -- a disk that refuses --


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


def noise(source: Source, sink: Sink) -> None:
    """Writes what does not compress."""
    random = np.random.default_rng(0)
    with sink:
        for frame in source:
            sink.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8), frame)


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
