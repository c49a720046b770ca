"""``-map`` keeps and leaves out streams as ffmpeg does; timecodes, places and hidden beginnings; joined recordings."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from support.clips import Clip, make, packets
from support.commands import fails, here
from support.sink_outputs import copy, read
from support.tracks import Track, codecs, delay_of, film, hear

from streamdream.media.timecode import advance
from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
CHEAP = ("--backend", "eager", "--precision", "fp32", "--threads", "1", "--field-height", "48", "--octaves", "1",
         "--steps", "1", "--layers", "conv2d_2")


@pytest.fixture(scope="module")
def rich(folder: Path) -> str:
    return film(folder / "rich.mkv", Track("aac", language="eng"), Track("ac3", 48_000, language="deu"),
                texts=((100, 500, "hello"),))


def kept(path: Path) -> list[str]:
    return [*codecs(path), *codecs(path, "subtitle")]


@pytest.mark.parametrize(("text", "wanted"), [
    ("", ["aac", "ac3", "subrip"]), ("0", ["aac", "ac3", "subrip"]), ("0:a", ["aac", "ac3"]), ("0:a:1", ["ac3"]),
    ("0:1", ["aac"]), ("0:s", ["subrip"]), ("-0:s", ["aac", "ac3"]), ("0:a -0:a:0", ["ac3"]), ("0:v", []),
    ("0:m:language:deu", ["ac3"]), ("0:a:0 0:s:0", ["aac", "subrip"]), ("0:d?", []), ("0:V 0:a:7? 0:a:0", ["aac"]),
])
def test_map_keeps_what_ffmpeg_keeps(tmp_path: Path, rich: str, text: str, wanted: list[str]) -> None:
    sink = copy(rich, tmp_path / "a.mkv", RenderSettings(map=text))
    assert kept(tmp_path / "a.mkv") == wanted
    assert sink.warnings == []  # it was asked for
    assert len(read(tmp_path / "a.mkv")) == 30


@pytest.mark.parametrize(("flags", "parts"), [
    (("-map", "0:q"), ("-map is '0:q'", "0:a:1", "-0:d")), (("-map", "1:a"), ("-map is '1:a'", "0:s")),
    (("-map", "0:a:x"), ("-map is '0:a:x'",)), (("-map", "sound"), ("-map is 'sound'",)),
    (("-map", "0:a:5"), ("-map 0:a:5 matches no stream", "0:1 (audio)", "0:a:5?")), (("-map", "-0:d"), ("no stream",)),
])
def test_a_wrong_map_tells_the_legal_form(tmp_path: Path, rich: str, capsys: pytest.CaptureFixture[str],
                                          flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    fails(here(capsys, "render", rich, "-o", tmp_path / "a.mkv", *CHEAP, *flags), 2, *parts)


def test_map_may_be_given_several_times(tmp_path: Path, rich: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", rich, "-o", tmp_path / "a.mkv", *CHEAP, "-map", "0:a", "-map", "-0:a:0",
                  "-map", "0:s")
    assert result.returncode == 0, result.stderr
    assert kept(tmp_path / "a.mkv") == ["ac3", "subrip"]


# -- timecode, place --


def with_timecode(path: Path, timecode: str, rate: Fraction) -> str:
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata["timecode"] = timecode
        output.metadata["location"] = "+48.8577+002.2950/"
        for number in range(40):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            output.mux(video.encode(picture))
        output.mux(video.encode())
    return str(path)


def timecode_of(path: Path) -> str:
    with av.open(str(path)) as file:
        tags = [stream.metadata for stream in file.streams] + [file.metadata]
        return next((text for each in tags for key, text in each.items() if key.lower() == "timecode"), "")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_timecode_and_place_are_kept(tmp_path: Path, suffix: str) -> None:
    path = with_timecode(tmp_path / "in.mov", "01:00:59;20", Fraction(30000, 1001))
    assert copy(path, tmp_path / f"a.{suffix}").warnings == []
    assert timecode_of(tmp_path / f"a.{suffix}") == "01:00:59;20"
    copy(path, tmp_path / f"a.{suffix}", RenderSettings(start=0.5), overwrite=True)
    assert timecode_of(tmp_path / f"a.{suffix}") == "01:01:00;07"  # ;00 and ;01 are no frames of that minute
    with av.open(str(tmp_path / f"a.{suffix}")) as file:
        assert "+48.8577+002.2950/" in file.metadata.values()


def test_what_is_left_out_of_timecode_and_place_is_said(tmp_path: Path) -> None:
    path = with_timecode(tmp_path / "in.mov", "01:00:00;00", Fraction(30000, 1001))
    warnings = copy(path, tmp_path / "a.avi").warnings
    assert sum("the timecode 01:00:00;00" in line and "avi cannot hold it" in line for line in warnings) == 1
    assert sum("avi cannot hold the GPS position" in line for line in warnings) == 1
    path = film(tmp_path / "in.mkv")
    with av.open(path) as file, av.open(str(tmp_path / "odd.mkv"), "w") as output:  # drop-frame at 25 frames a second
        video = output.add_stream_from_template(file.streams.video[0], opaque=True)
        video.metadata["timecode"] = "01:00:00;00"
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
    (warning,) = copy(str(tmp_path / "odd.mkv"), tmp_path / "a.mov").warnings
    assert "the timecode 01:00:00;00" in warning and "25 frames a second" in warning


def test_timecodes_of_a_day_follow_each_other() -> None:
    rate, now = Fraction(30000, 1001), "23:58:59;00"
    seen = [advance(now, number, rate) for number in range(3700)]
    assert len(set(seen)) == 3700 and seen[29:31] == ["23:58:59;29", "23:59:00;02"]
    assert seen[30 + 1798] == "00:00:00;00"
    assert advance("00:00:59;59", 1, Fraction(60000, 1001)) == "00:01:00;04"
    assert advance("10:00:00:24", 1, Fraction(25)) == "10:00:01:00"
    assert [advance(text, 0, Fraction(25)) for text in ("10:00:00:25", "10:00:00;00", "now", "")] == [None] * 4


def test_data_are_named_and_left_out(tmp_path: Path) -> None:
    """As the track of a camera's positions."""
    path = str(tmp_path / "in.ts")
    with av.open(film(tmp_path / "made.ts", video_codec="mpeg2video")) as file, av.open(path, "w") as output:
        video = output.add_stream_from_template(file.streams.video[0], opaque=True)
        data = output.add_data_stream("klv")
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
                place: Any = av.Packet(b"position")
                place.pts, place.dts, place.time_base, place.stream = packet.pts, packet.dts, packet.time_base, data
                output.mux(place)
    for suffix in ("mp4", "mov", "mkv", "webm", "avi", "gif"):
        (warning,) = copy(path, tmp_path / f"a.{suffix}").warnings
        assert "(data klv)" in warning and "left out" in warning


# -- time --


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi"])
def test_what_an_edit_list_hides_stays_hidden(tmp_path: Path, suffix: str) -> None:
    """A film of which 0.5 s were cut off without encoding: its packets are there from the keyframe before on."""
    whole = make(tmp_path / "whole.mp4", Clip(30, audio="aac", options={"g": "30", "bf": "2"}))
    path = str(tmp_path / "cut.mp4")
    with av.open(whole) as file, av.open(path, "w") as output:
        twins = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in file.streams}
        for packet in file.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = round(Fraction(1, 2) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = twins[packet.stream_index]
                output.mux(packet)
    frames = read(path)
    assert len(frames) == 15
    copy(path, tmp_path / f"a.{suffix}")
    assert len(read(tmp_path / f"a.{suffix}")) == 15
    original, sound = hear(path), hear(tmp_path / f"a.{suffix}")
    assert abs(len(sound) - len(original)) / 16_000 <= 1024 / 48_000 + 0.002
    assert abs(delay_of(sound, original)) <= (1024 / 48_000 if suffix == "avi" else 0.001)
    first = min(float(time) for time, _ in packets(str(tmp_path / f"a.{suffix}")))
    assert first >= (-2048 if suffix in ("mp4", "mov") else -1024) / 48_000  # those before 0 are hidden there


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi"])
@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_joined_recordings_stay_in_time(tmp_path: Path, codec: str, suffix: str) -> None:
    """In each the clock begins anew, and the sound begins a little before the pictures."""
    one = Path(film(tmp_path / "one.ts", Track(codec, 48_000), video_codec="mpeg2video")).read_bytes()
    (tmp_path / "in.ts").write_bytes(one + one)
    copy(str(tmp_path / "in.ts"), tmp_path / f"a.{suffix}")
    with av.open(str(tmp_path / f"a.{suffix}")) as file:
        times = sorted(float(packet.pts * packet.time_base) for packet in file.demux(video=0)
                       if packet.pts is not None and packet.size)
    assert len(times) == 60 and times[-1] - times[0] == pytest.approx(59 / 25, abs=0.05 if suffix == "avi" else 0.003)
    sound, half = hear(tmp_path / f"a.{suffix}"), hear(tmp_path / "one.ts")
    assert len(sound) / 16_000 == pytest.approx(2.4, abs=0.06)
    second = sound[round(1.2 * 16_000):]
    allowed = 0.025 if suffix == "avi" else 0.012  # half a packet
    assert abs(delay_of(second, half[: len(second)])) <= allowed and abs(delay_of(sound[:19_200], half)) <= allowed


def test_a_part_of_joined_recordings_has_its_sound(tmp_path: Path) -> None:
    one = Path(film(tmp_path / "one.ts", Track("mp2", 48_000), video_codec="mpeg2video")).read_bytes()
    (tmp_path / "in.ts").write_bytes(one + one)
    copy(str(tmp_path / "in.ts"), tmp_path / "a.mkv", RenderSettings(end=1.8))
    assert len(hear(tmp_path / "a.mkv")) / 16_000 == pytest.approx(1.8, abs=0.03)
