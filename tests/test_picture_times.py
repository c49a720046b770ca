"""Times of pictures in every container: a constant rate stays one, exactly; no GIF is faster than browsers show it."""
from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from av.codec.context import CodecContext
from support.clips import Clip, irregular, make, number_of
from support.picture_copies import copy_in_chunks, copy_pictures, decoded, durations
from support.sink_outputs import read

from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
NTSC = Fraction(30000, 1001)
RATES = [Fraction(25), NTSC, Fraction(24000, 1001), Fraction(60)]


def steady(path: Path, rate: Fraction, frames: int = 30) -> str:
    return make(path, Clip(frames, time_base=1 / rate, rate=rate))


def average_rate(path: Path) -> Fraction:
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
    return Fraction(rate.numerator, rate.denominator) if rate else Fraction(0)


@pytest.mark.parametrize(("rate", "name"), [
    pytest.param(rate, name, marks=() if name == "a.mp4" or rate == NTSC else pytest.mark.soak)
    for rate in RATES for name in ("a.mp4", "a.mov", "a.mkv", "a.webm")])
@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
def test_a_constant_rate_stays_exact(tmp_path: Path, rate: Fraction, source: str, name: str) -> None:
    """The duration of an mp4 was one picture too long; milliseconds of Matroska became 33 and 34 of mp4."""
    path = steady(tmp_path / source, rate)
    for copy in copy_pictures, copy_in_chunks:
        assert copy(path, tmp_path / name) == []
        assert average_rate(tmp_path / name) == rate
        lengths = durations(tmp_path / name)
        assert len(lengths) == 30
        if name in ("a.mp4", "a.mov"):
            assert set(lengths) == {1 / rate}
        else:  # they count milliseconds
            assert max(abs(length - 1 / rate) for length in lengths) < Fraction(1, 1000)


def test_h264_states_its_rate(tmp_path: Path) -> None:
    """It stated its time base: 12800 pictures a second."""
    copy_pictures(steady(tmp_path / "in.mp4", Fraction(50)), tmp_path / "a.mp4")
    decoder: Any = CodecContext.create("h264", "r")
    with av.open(str(tmp_path / "a.mp4")) as file:
        decoder.extradata = file.streams.video[0].codec_context.extradata
        for packet in file.demux(video=0):
            decoder.decode(packet)
    assert decoder.framerate == 50


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_variable_rate_stays_variable(tmp_path: Path, name: str) -> None:
    times = irregular(20, 20, 120)
    path = make(tmp_path / "in.mkv", Clip(pts=times, time_base=Fraction(1, 1000), last_ticks=50))
    copy_in_chunks(path, tmp_path / name)
    assert [round(frame.pts_seconds * 1000) for frame in read(tmp_path / name)] == times


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), Fraction(50), Fraction(60), Fraction(120)])
def test_a_gif_shows_no_picture_for_less_than_20_ms_and_keeps_its_length(tmp_path: Path, rate: Fraction) -> None:
    path = steady(tmp_path / "in.mp4", rate, int(rate))
    for copy in copy_pictures, copy_in_chunks:
        warnings = copy(path, tmp_path / "a.gif")
        assert len(warnings) == (rate > 50)
        lengths = durations(tmp_path / "a.gif")
        assert min(lengths) >= Fraction(1, 50) and sum(lengths) == 1
        assert len(lengths) == min(rate, 50)
    if rate == 120:
        numbers = [number_of(picture.to_ndarray(format="rgb24")) for picture in decoded(tmp_path / "a.gif")]
        assert {later - earlier for earlier, later in pairwise(numbers)} <= {2, 3}


def test_a_rate_that_is_a_time_base_does_not_end_the_render(tmp_path: Path) -> None:
    """The tape said 60000 pictures a second, and had a timecode, which FFmpeg refused to count."""
    path = make(tmp_path / "in.mkv", Clip(10, metadata={"timecode": "01:00:00:00"}))
    for name in "a.mp4", "a.mov", "a.mkv":
        with open_source(path) as source:
            source.rate = Fraction(60000)
            with open_sink(str(tmp_path / name), source, RenderSettings(), input_path=path) as sink:
                for frame in source:
                    sink.write(frame.image, frame)
        assert len(sink.warnings) == 1 and re.search("timecode .* is left out", sink.warnings[0])
        assert len(read(tmp_path / name)) == 10


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_very_short_videos(tmp_path: Path, count: int, codec: str) -> None:
    """libx265 gives undefined times to two pictures."""
    path = steady(tmp_path / "in.mp4", Fraction(25), count)
    copy_in_chunks(path, tmp_path / "a.mkv", 2, codec=codec)
    copy_pictures(path, tmp_path / "b.mp4", codec=codec)
    assert len(decoded(tmp_path / "a.mkv")) == len(decoded(tmp_path / "b.mp4")) == count


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (16384, 16)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.apng"])
def test_pictures_of_any_size(tmp_path: Path, size: tuple[int, int], name: str) -> None:
    path = make(tmp_path / "in.mkv", Clip(2, size, codec="ffv1", pixels="bgr0"))
    copy_in_chunks(path, tmp_path / name)
    stored = decoded(tmp_path / name)
    assert len(stored) == 2 and 0 <= stored[0].width - size[0] <= 1
