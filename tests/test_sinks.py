"""Sinks: one contract for all of them, then what only files have."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.clips import Clip, make, marked, number_of
from support.sink_outputs import NAMES, copy, names, noise, read

from streamdream.errors import SinkError, StreamdreamError, UnknownName, UsageError
from streamdream.media.sinks.base import NullSink, Sink
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

FILES = NAMES[:7]
pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.parametrize("name", NAMES)
def test_sinks_give_back_the_frames_they_were_given(tmp_path: Path, clip: str, name: str) -> None:
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
def test_an_aborted_sink_leaves_nothing(tmp_path: Path, clip: str, name: str, count: int) -> None:
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
def test_an_error_within_a_sink_aborts_it(tmp_path: Path, clip: str, name: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_source(clip) as source, \
            open_sink(str(tmp_path / name), source, RenderSettings(), False, clip) as sink:
        for frame in source:
            sink.write(frame.image, frame)
            raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_open_sink_refuses_to_overwrite_without_y(tmp_path: Path, clip: str, name: str) -> None:
    copy(clip, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="exists; -y overwrites it"):
        copy(clip, tmp_path / name)
    begin(clip, tmp_path / name, 5, overwrite=True).abort()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    copy(clip, tmp_path / name, RenderSettings(start=0.4), overwrite=True)
    assert before != {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_without_frames_is_an_error(tmp_path: Path, clip: str, name: str) -> None:
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


def test_the_null_sink_writes_nothing(clip: str) -> None:
    with open_source(clip) as source, open_sink("null", source, RenderSettings()) as sink:
        for frame in source:
            sink.write(frame.image, frame)
    assert isinstance(sink, NullSink) and sink.bytes_written == 0


# -- wrong orders --


@pytest.mark.parametrize(("path", "words"), [
    ("a.xyz", r"must end in \.mp4, .*\.gif, or a pattern"), ("a", "must end in"), ("a.png", "or a pattern such as"),
    ("nowhere/a.mp4", "no such folder: .*nowhere"), ("nowhere/%d.png", "no such folder"),
])
def test_open_sink_refuses_a_path_it_cannot_write(tmp_path: Path, clip: str, path: str, words: str) -> None:
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
def test_open_sink_names_an_unknown_encoder(tmp_path: Path, clip: str, capfd: pytest.CaptureFixture[str], name: str,
                                            settings: dict[str, Any], error: type[StreamdreamError],
                                            words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        copy(clip, tmp_path / name, RenderSettings(**settings))
    assert "\n" not in str(caught.value) and names(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_an_encoder_without_its_hardware_is_named(tmp_path: Path, clip: str) -> None:
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
def test_every_encoder_writes_a_readable_file(tmp_path: Path, clip: str, capfd: pytest.CaptureFixture[str], name: str,
                                              codec: str) -> None:
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
def test_a_lossless_encoder_gives_back_the_same_pixels(tmp_path: Path, clip: str, name: str, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    with open_source(clip) as source, \
            open_sink(str(tmp_path / name), source, RenderSettings(codec=codec, crf=0)) as sink:
        for image, frame in zip(noise, source, strict=False):
            sink.write(image, frame)
    assert all(np.array_equal(frame.image, image) for frame, image in zip(read(tmp_path / name), noise, strict=True))


@pytest.mark.parametrize("name", ["f_%d.png", "f_%d.jpg"])
def test_pictures_are_written_without_noise(tmp_path: Path, clip: str, name: str, capfd: pytest.CaptureFixture[str]
                                            ) -> None:
    """OpenCV printed a line for each picture: the encoder did not know an option of the other format."""
    copy(clip, tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 20 and capfd.readouterr().err == ""


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
def test_a_higher_crf_makes_a_smaller_file(tmp_path: Path, clip: str, codec: str, name: str) -> None:
    sizes = []
    for crf in (2, 63):
        with open_source(clip) as source:
            sink = open_sink(str(tmp_path / f"{crf}{name}"), source, RenderSettings(codec=codec, crf=crf))
            noise(source, sink)
        sizes.append(sink.bytes_written)
    assert sizes[0] > 1.5 * sizes[1]


def test_encoder_presets_reach_the_encoder(tmp_path: Path, clip: str) -> None:
    for preset in ("auto", "ultrafast", "veryslow"):
        copy(clip, tmp_path / f"{preset}.mp4", RenderSettings(encoder_preset=preset))
    found = {preset: (tmp_path / f"{preset}.mp4").read_bytes() for preset in ("auto", "ultrafast", "veryslow")}
    assert b"subme=2 " in found["auto"]  # x264 writes its settings into the stream: this is veryfast
    assert b"subme=0 " in found["ultrafast"] and b"subme=10 " in found["veryslow"]
    sink = copy(clip, tmp_path / "a.mkv", RenderSettings(codec="ffv1", encoder_preset="slow"))
    assert sink.warnings == ["ffv1 has no presets; 'slow' was not used"]


@pytest.mark.parametrize(("name", "size"), [("a.mp4", (66, 50)), ("a.mkv", (66, 50)), ("a.webm", (65, 49)),
                                            ("a.avi", (65, 49)), ("a.gif", (65, 49)), ("%d.png", (65, 49))])
def test_frames_of_odd_sizes_are_padded_where_the_codec_wants_even_ones(
        tmp_path: Path, name: str, size: tuple[int, int]) -> None:
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
