"""Timestamps that jump: wrong clocks are closed up and named, pauses stay."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from support.clips import Clip, make, marked, number_of, shuffled

from streamdream.media.frame import picture_checksum
from streamdream.media.input_container import TimeRange
from streamdream.media.packet_clock import PacketClock, repaired_packets
from streamdream.media.packet_scan import scan_packets
from streamdream.media.sources.video import open_source

TEN_HOURS = 36_000
STEADY = [40 * number for number in range(7)]


def jumping(path: Path, gap_seconds: int, sound_seconds: Sequence[int] = ()) -> str:
    """25 pictures a second; the second second comes later. Sound is a packet at each of these seconds, where any."""
    with av.open(str(path), "w", container_options={"max_interleave_delta": "0"}) as output:
        video: Any = output.add_stream("libx264", rate=25, options={"bf": "2"})
        video.width, video.height = 64, 48
        sound: Any = output.add_stream("pcm_s16le", rate=8000) if sound_seconds else None
        packets = []
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(marked(number), "rgb24")
            picture.pts, picture.time_base = number + (number >= 25) * gap_seconds * 25, Fraction(1, 25)
            packets += video.encode(picture)
        packets += video.encode()
        for second in sound_seconds:
            packet: Any = av.Packet(bytes(800))
            packet.pts = packet.dts = second * 8000
            packet.time_base, packet.stream = Fraction(1, 8000), sound
            packets.append(packet)
        output.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux_one(packet)
    return str(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_gap_of_hours_is_closed_and_named(tmp_path: Path, name: str) -> None:
    path = jumping(tmp_path / name, TEN_HOURS)
    with open_source(path) as source:
        assert source.frame_count == 50 and source.rate == 25
        frames = list(source)
        assert source.last_duration == Fraction(1, 25)
    assert [round(frame.pts_seconds * 25) for frame in frames] == list(range(50))
    assert [number_of(frame.image) for frame in frames] == list(range(50))
    assert source.warnings == [f"{path} has timestamps that jump by 10.0 hours; the gap was closed"]


def test_a_closed_gap_is_closed_for_ranges_scans_and_resumed_renders(tmp_path: Path) -> None:
    path = jumping(tmp_path / "a.mkv", TEN_HOURS)
    with open_source(path) as source:
        frames = list(source)
    with open_source(path, start=0.8, duration=0.6) as source:
        part = list(source)
    assert [number_of(frame.image) for frame in part] == list(range(20, 35))
    assert [round(frame.pts_seconds * 25) for frame in part] == list(range(15))
    assert scan_packets(path, TimeRange(), 5).pictures == 50
    assert scan_packets(path, TimeRange.of(0.8, 0.6), 5).pictures == 15
    for index in (24, 25, 26, 40):
        position = frames[index].position
        assert position is not None
        with open_source(path) as source:
            source.resume_at(position, index, picture_checksum(frames[index]))
            assert [frame.pts for frame in source] == [frame.pts for frame in frames[index:]]


@pytest.mark.parametrize(("gap_seconds", "sound_seconds", "stays"), [
    (300, (), True),
    (1200, range(1202), True),
    (1200, range(8), False),
    (1200, [0, 1, 1201, 1202], False),
])
def test_a_pause_stays(tmp_path: Path, gap_seconds: int, sound_seconds: Sequence[int], stays: bool) -> None:
    """As of a camera that waits for motion, or where sound goes on."""
    with open_source(jumping(tmp_path / "a.mkv", gap_seconds, sound_seconds)) as source:
        times = [frame.pts_seconds for frame in source]
    assert times[25] == pytest.approx(1.0 + gap_seconds * stays)
    assert ["jump by 20.0 minutes" in warning for warning in source.warnings] == [True] * (not stays)


def test_a_time_lapse_has_no_gaps(tmp_path: Path) -> None:
    clip = Clip(8, rate=Fraction(1, 1800), time_base=Fraction(1800))
    with open_source(make(tmp_path / "a.mkv", clip)) as source:
        assert [frame.pts_seconds for frame in source] == [1800 * number for number in range(8)]
    assert source.warnings == []


@pytest.mark.parametrize("stray", [90_000_000, 30_000])
@pytest.mark.parametrize("number", [0, 3])
def test_one_picture_that_is_far_off_is_put_in_line(tmp_path: Path, stray: int, number: int) -> None:
    path = shuffled(tmp_path / "a.mkv", [*STEADY[:number], stray, *STEADY[number + 1:]])
    with open_source(path) as source:
        frames = list(source)
    assert [frame.pts for frame in frames] == STEADY
    assert source.warnings == [f"{path} has a timestamp that is far off; it was repaired"]


def test_a_high_rate_is_believed_where_pictures_come_at_it(tmp_path: Path) -> None:
    for rate in (480, 1000):
        clip = Clip(20, rate=Fraction(rate), time_base=Fraction(1, rate))
        with open_source(make(tmp_path / "a.mp4", clip)) as source:
            assert source.rate == rate


def test_the_rate_of_a_tape(tmp_path: Path) -> None:
    """FFmpeg states 60,000 pictures a second for a raw DV file with sound."""
    with av.open(str(tmp_path / "a.dv"), "w") as output:
        video: Any = output.add_stream("dvvideo", rate=25)
        video.width, video.height, video.pix_fmt = 720, 576, "yuv420p"
        sound: Any = output.add_stream("pcm_s16le", rate=48000, layout="stereo")
        for number in range(5):
            picture = av.VideoFrame.from_ndarray(marked(number, (720, 576)), "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(video.encode(picture))
            packet: Any = av.Packet(bytes(1920 * 4))
            packet.pts = packet.dts = number * 1920
            packet.time_base, packet.stream, packet.duration = Fraction(1, 48000), sound, 1920
            output.mux(packet)
        output.mux(video.encode())
    with open_source(str(tmp_path / "a.dv")) as source:
        assert source.rate == 25 and source.frame_count == 5
        assert [round(frame.pts_seconds * 25) for frame in source] == list(range(5))


# -- the clock of packets --


def test_packets_of_all_streams_get_the_shift_of_the_pictures() -> None:
    """Two recordings of a second, whose clocks begin at 10 and at 3; sound is a little ahead in the file."""
    clock, step = PacketClock(Fraction(1, 4)), Fraction(1, 4)
    assert [clock.main(10 + number * step) for number in range(4)] == [10 + number * step for number in range(4)]
    assert [clock.other(1, 10 + number * step, True) for number in range(4)] == [10 + n * step for n in range(4)]
    assert clock.other(1, Fraction(3), True) is None
    assert clock.main(Fraction(3)) == 11
    assert clock.other(1, Fraction(3), True) == 11
    assert clock.other(1, 3 + step, True) == 11 + step
    assert clock.other(2, Fraction(43, 4), False) is not None  # a stream that comes late belongs to the last one
    assert clock.main(3 + 2 * step) == 11 + 2 * step


def test_packets_behind_a_closed_gap_follow_the_pictures() -> None:
    """Packets are in the order of decoding."""
    clock, later = PacketClock(Fraction(1)), Fraction(TEN_HOURS)
    before = [clock.main(Fraction(pts), Fraction(dts)) for dts, pts in enumerate((0, 3, 1, 2))]
    assert before == [0, 3, 1, 2] and clock.other(1, Fraction(3), True) == 3
    assert clock.other(1, later, True) is None
    after = [clock.main(later + pts, Fraction(4 + dts)) for dts, pts in enumerate((6, 4, 5, 7))]
    assert after[1:] == [4, 5, 7]
    assert clock.other(1, later + 6, True) == 6


def repaired_times(path: str) -> dict[str, list[float]]:
    """Times in seconds since the start, of all packets of each type of stream."""
    times: dict[str, list[float]] = {}
    with av.open(path) as file:
        packets: Any = (packet for packet in file.demux() if packet.size)
        for packet in repaired_packets(packets, file.streams.video[0]):
            seconds = float(packet.pts * packet.time_base) - file.start_time / 1e6
            times.setdefault(packet.stream.type, []).append(seconds)
    return times


def test_sound_that_jumps_with_the_pictures_is_moved_with_them(tmp_path: Path) -> None:
    times = repaired_times(jumping(tmp_path / "a.mkv", TEN_HOURS, [0, 36_001]))
    assert times["audio"] == pytest.approx([0, 1], abs=0.002)
    assert len(times["video"]) == 50 and max(times["video"]) < 2


def test_sound_of_joined_recordings_is_moved_with_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "b.ts"
    path.write_bytes(Path(make(tmp_path / "a.ts", Clip(60, audio="aac", audio_seconds=2))).read_bytes() * 2)
    times = repaired_times(str(path))
    assert len(times["video"]) == 120
    assert 180 < len(times["audio"]) <= 190 and 3.9 < times["audio"][-1] < 4.1
    assert max(after - before for before, after in pairwise(times["audio"])) < 0.07
    assert min(after - before for before, after in pairwise(times["audio"])) > 0
