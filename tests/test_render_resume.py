"""A render goes on after any interruption, and ends with the frames of one that was never interrupted."""
from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from support.clips import Clip, irregular, make, packets
from support.planned_renders import assert_same, job, moving, packet_times, render, render_with_stops
from support.sink_outputs import names

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

FRAMES, RATE = 22, 5
"""Four seconds: behind the first two, a source is resumed by seeking."""
STOPS = [0.1, 0.45, 0.85]
"""Where renders are interrupted, as parts of all their frames."""
TICK = Fraction(1, RATE)
MS = 1000 // RATE


def steady(path: Path, **how: object) -> str:
    """22 frames at 5/s, a keyframe every 5, a cut before frame 15."""
    values = {"frames": FRAMES, "time_base": TICK, "rate": Fraction(RATE), "size": (96, 72),
              "options": {"crf": "4", "g": "5", "bf": "2"}} | how
    clip = Clip(**values)  # type: ignore[arg-type]
    return make(path, clip, moving(clip.frames, clip.size, cut_at=15))


def with_pts(path: Path, pts: list[int]) -> str:
    """Pictures with these times in ms, in this order, which no encoder would write."""
    with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuvj420p"
        for number, (time, image) in enumerate(zip(pts, moving(len(pts)), strict=True)):
            picture = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuvj420p")
            picture.pts, picture.time_base = number, TICK
            for packet in stream.encode(picture):
                packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), time, number - len(pts)
                output.mux(packet)
    return str(path)


def joined_recordings(path: Path) -> str:
    """A transport stream whose clock begins anew in its middle."""
    parts = [make(path.with_name(f"{number}.ts"), Clip(FRAMES // 2, time_base=TICK, rate=Fraction(RATE), size=(96, 72)),
                  list(moving(FRAMES))[number::2]) for number in range(2)]
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    return str(path)


def pictures(path: Path) -> str:
    from streamdream.media.images import write_image

    for number, image in enumerate(moving(70)):  # the rate of a sequence is 25/s
        write_image(str(path.with_name(f"{number + 3:03d}.png")), image)
    return str(path.with_name("%03d.png"))


def two_seconds_late(path: Path) -> str:
    return with_pts(path, [2000 + MS * number for number in range(FRAMES)])


def damaged(path: Path) -> str:
    """Three pictures are damaged: before, between and behind the stops."""
    steady(path, codec="mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    starts = [place for place in range(len(data)) if data[place: place + 3] == b"\xff\xd8\xff"]
    for number in (3, FRAMES // 2, FRAMES - 4):
        data[starts[number]: starts[number + 1]] = bytes(starts[number + 1] - starts[number])
    path.write_bytes(data)
    return str(path)


SOURCES: dict[str, Callable[[Path], str]] = {
    "steady.mp4": steady,
    "open.mkv": lambda path: steady(path, options={"x264-params": "open-gop=1:keyint=5:bframes=3:scenecut=0"}),
    "b-frames.mpg": lambda path: steady(path, frames=80, codec="mpeg2video", rate=Fraction(25),
                                         time_base=Fraction(1, 25)),
    "vfr.mkv": lambda path: steady(path, pts=irregular(FRAMES, 60, 500), time_base=Fraction(1, 1000)),
    "backwards.mkv": lambda path: with_pts(path, [MS * number - 300 * (number % 7 == 6) for number in range(FRAMES)]),
    "reset.mkv": lambda path: with_pts(path, [5000 + MS * number - 4900 * (number > 12) for number in range(FRAMES)]),
    "joined.ts": joined_recordings,
    "without-times.h264": steady,
    "late.mkv": two_seconds_late,
    "rotated.mp4": lambda path: steady(path, rotation=(90.0, False, False)),
    "odd.mkv": lambda path: steady(path, codec="ffv1", size=(99, 73), pixels="bgr0"),
    "sequence": pictures,
    "damaged.mp4": damaged,
    "graph": lambda path: "lavfi:testsrc2=size=96x72:rate=5:duration=4.4",
}


QUICK_SOURCES = {"damaged.mp4", "open.mkv", "vfr.mkv", "reset.mkv", "without-times.h264", "sequence"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK_SOURCES else pytest.mark.soak)
                                  for name in SOURCES])
def test_every_kind_of_source_is_gone_on_with(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = SOURCES[name](tmp_path / "in" / name)
    whole, parts = (job(source, tmp_path / out, codec="ffv1") for out in ("whole.mkv", "parts.mkv"))
    expected = render(whole)
    assert expected is not None
    report = render_with_stops(parts, [round(part * expected.frames) for part in STOPS])
    assert_same(whole.output, parts.output)
    assert report.frames == expected.frames and report.cuts == expected.cuts
    assert report.warnings == expected.warnings
    assert names(tmp_path) == ["in", "parts.mkv", "whole.mkv"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("a.mp4", "a.gif", "f_%d_x2.jpg") else
                                               pytest.mark.soak)
                                  for name in ("a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi", "a.gif", "%04d.png",
                                               "f_%d_x2.jpg")])
def test_every_kind_of_output_is_gone_on_with(name: str, tmp_path: Path, folder: Path) -> None:
    source = steady(folder / "odd.mp4", codec="libx264", audio="aac", audio_seconds=4.4)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = (job(source, tmp_path / out / name) for out in ("whole", "parts"))
    render(whole)
    render_with_stops(parts, [round(part * FRAMES) for part in STOPS])
    assert_same(whole.output, parts.output)


@pytest.mark.parametrize("name", ["a.mp4", pytest.param("a.mov", marks=pytest.mark.soak),
                                  pytest.param("a.mkv", marks=pytest.mark.soak),
                                  pytest.param("a.webm", marks=pytest.mark.soak)])
def test_a_joined_file_is_as_one_that_was_encoded_at_once(name: str, folder: Path, tmp_path: Path) -> None:
    """Packet by packet: order, keyframes where chunks begin, durations; and another program decodes all of it."""
    path = folder / "long.mp4"
    source = str(path) if path.exists() else steady(path, frames=43)
    the_job = job(source, tmp_path / name)
    render(the_job)
    rows = packet_times(the_job.output)
    decode_times = [dts for _, dts, _, _ in rows if dts is not None]
    assert len(rows) == 43 and decode_times == sorted(set(decode_times))
    assert name not in ("a.mp4", "a.mov") or len(decode_times) == 43  # Matroska stores none
    assert all(dts <= pts for pts, dts, _, _ in rows if dts is not None)
    [duration] = {duration for _, _, duration, _ in rows}
    assert sorted(pts for pts, _, _, _ in rows) == [duration * number for number in range(43)]
    assert {pts // duration for pts, _, _, is_key in rows if is_key} >= set(range(0, 43, 8))
    if ffmpeg := shutil.which("ffmpeg"):
        command = [ffmpeg, "-v", "warning", "-xerror", "-i", the_job.output, "-f", "null", "-"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")


# --- settings over time -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounding(folder: Path) -> str:
    """A clip with sound that comes and goes, of more frames, so that more chunks end in it."""
    return steady(folder / "sounding.mkv", frames=44, time_base=Fraction(1, 10), rate=Fraction(10), audio="aac",
                  audio_seconds=4.4)


def track(path: Path) -> str:
    """Settings that freeze the picture over the ends of two chunks, and a reset within and at the start of others."""
    events: list[dict[str, object]] = [
        {"format": "streamdream settings 1", "set": {"strength": 1.0}},
        {"seconds": 0.5, "frozen": True}, {"seconds": 1.75, "frozen": False}, {"seconds": 2.0, "reset": True},
        {"seconds": 2.4, "reset": True, "set": {"strength": 1.4}}, {"seconds": 3.0, "frozen": True},
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return str(path)


@pytest.mark.parametrize("flags", [
    {"playlist": "conv2d_3@1.3; conv2d_4 strength=1.5@0.9", "fade": "0.8"},
    pytest.param({"sound": "source", "sound_depth": "1"}, marks=pytest.mark.soak),
    {"start": "0.35", "duration": "3.5", "playlist": "conv2d_3@1.3; conv2d_4@0.9", "sound": "source"},
    pytest.param({"start": "1", "end": "3.9"}, marks=pytest.mark.soak),
], ids=["playlist", "sound", "range", "end"])
def test_settings_over_time_go_on_where_they_were(flags: dict[str, str], sounding: str, tmp_path: Path) -> None:
    whole, parts = (job(sounding, tmp_path / name, codec="ffv1", **flags) for name in ("whole.mkv", "parts.mkv"))
    expected = render(whole)
    assert expected is not None
    render_with_stops(parts, [round(part * expected.frames) for part in STOPS])
    assert_same(whole.output, parts.output)
    assert packets(whole.output) == packets(parts.output) != []


@pytest.mark.parametrize("stops", [[14, 18], [33, 40], pytest.param([9], marks=pytest.mark.soak),
                                   pytest.param([17, 22, 26], marks=pytest.mark.soak)])
def test_a_track_that_freezes_and_resets_goes_on_where_it_was(stops: list[int], sounding: str, tmp_path: Path) -> None:
    events = track(tmp_path / "track.jsonl")
    whole, parts = (job(sounding, tmp_path / f"{name}.mkv", settings_track=events, codec="ffv1",
                        record_settings=str(tmp_path / f"{name}.jsonl")) for name in ("whole", "parts"))
    render(whole)
    render_with_stops(parts, stops)
    assert_same(whole.output, parts.output)
    assert (tmp_path / "whole.jsonl").read_text() == (tmp_path / "parts.jsonl").read_text()


def test_a_guide_video_goes_on_where_it_was(sounding: str, tmp_path: Path) -> None:
    guide = steady(tmp_path / "guide.mp4", frames=15)
    whole, parts = (job(sounding, tmp_path / name, codec="ffv1", guide=guide) for name in ("whole.mkv", "parts.mkv"))
    render(whole)
    render_with_stops(parts, [20, 37])
    assert_same(whole.output, parts.output)
