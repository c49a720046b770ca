"""Live recordings: they can be read at any moment, and every end of a run keeps them."""
from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from support.clips import marked
from support.commands import PROGRAM_ENVIRONMENT
from support.live_runs import SIZE, Ends, broken, live
from support.live_sinks import Camera, live_context, live_sink, numbers_in, wait_for_line, write

from streamdream.backends import Backend
from streamdream.errors import SinkError, UsageError
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.live import timestamped_frame
from streamdream.settings import RenderSettings

SUFFIXES = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recording_can_be_read_while_it_is_made(suffix: str, tmp_path: Path) -> None:
    """A copy at any moment is what kill -9 would leave. It was hidden, and an mp4 could not be read before its end."""
    out, copy = tmp_path / f"show{suffix}", tmp_path / f"copy{suffix}"
    with live_sink(str(out)) as sink:
        write(sink, 150)
        found: list[int] = []
        deadline = time.monotonic() + 20
        while len(found) < 60 and time.monotonic() < deadline:
            time.sleep(0.1)
            copy.write_bytes((tmp_path / f"show.partial{suffix}").read_bytes())
            try:
                found = numbers_in(copy)
            except (av.FFmpegError, IndexError):  # nothing is in it yet
                found = []
        assert len(found) >= 60
        assert found[:50] == list(range(50)) and not out.exists()
    copy.unlink()
    assert names(tmp_path) == [out.name] and numbers_in(out) == list(range(150))


def facts(path: Path) -> tuple[Any, ...]:
    container: Any
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        head = (container.duration, stream.time_base, stream.start_time, stream.duration, stream.average_rate,
                context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        packets = [(packet.pts, packet.dts, packet.duration, packet.is_keyframe) for packet in container.demux(stream)]
    with av.open(str(path)) as container:
        pictures = [hashlib.sha256(picture.to_ndarray(format="rgb24").tobytes()).hexdigest()
                    for picture in container.decode(video=0)]
    return head, packets, pictures


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_finished_recording_is_the_file_that_a_rendering_makes(suffix: str, tmp_path: Path) -> None:
    """Its times, uneven ones, durations, colours and pictures do not tell how it was written."""
    times = [0.2]
    for number in range(99):
        times.append(times[-1] + (0.033, 0.0341, 0.05, 0.1, 0.0167)[number % 5])
    for name, context in (("live", live_context()), ("rendered", None)):
        with open_sink(str(tmp_path / f"{name}{suffix}"), Camera(), RenderSettings(), show=context) as sink:
            for number, seconds in enumerate(times):
                sink.write(marked(number, SIZE), timestamped_frame(marked(number, SIZE), seconds))
    assert facts(tmp_path / f"live{suffix}") == facts(tmp_path / f"rendered{suffix}")


def test_the_last_picture_does_not_lengthen_a_recording(tmp_path: Path) -> None:
    """A camera that was measured at one picture a second, and whose pictures are repeated ten times: 7.0 s were 7.9."""
    out = tmp_path / "a.mp4"
    with open_sink(str(out), Camera(1), RenderSettings(), show=live_context()) as sink:
        for number in range(70):
            sink.write(marked(number, SIZE), timestamped_frame(marked(number, SIZE), number / 10))
    container: Any
    with av.open(str(out)) as container:
        assert container.duration / 1e6 == pytest.approx(7.0, abs=0.01)


# --- what ends a run --------------------------------------------------------------------------------------------------

RECORDER = """
import time
from support.clips import marked
from support.live_runs import SIZE
from support.live_sinks import live_sink
from streamdream.media.sources.live import timestamped_frame
sink, number = live_sink({path!r}), 0
while True:
    sink.write(marked(number % 256, SIZE), timestamped_frame(marked(number % 256, SIZE), number / 30))
    number += 1
    time.sleep(0.005)
    if number == 300:
        print("recorded", flush=True)
"""


def test_kill_9_leaves_a_recording_that_the_next_run_names_and_keeps(tmp_path: Path,
                                                                     caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "show.mp4"
    with subprocess.Popen([sys.executable, "-c", RECORDER.format(path=str(out))], stdout=subprocess.PIPE, text=True,
                          env=PROGRAM_ENVIRONMENT) as process:
        wait_for_line(process.stdout, "recorded")
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == ["show.partial.mp4"]
    left = (tmp_path / "show.partial.mp4").read_bytes()
    found = numbers_in(tmp_path / "show.partial.mp4")
    assert len(found) > 100 and found[:90] == list(range(90))
    with live_sink(str(out)) as sink:
        write(sink, 5)
    [line] = [record.getMessage() for record in caplog.records]
    minutes, _, seconds = line.removeprefix("a recording of ").partition(" ")[0].partition(":")
    assert 60 * int(minutes) + int(seconds) == int(len(found) / 30 + 0.01)
    assert line.endswith(f" from an interrupted run is in {tmp_path / 'show.partial.mp4'}")
    assert names(tmp_path) == ["show.mp4", "show.partial.mp4"] and numbers_in(out) == list(range(5))
    assert (tmp_path / "show.partial.mp4").read_bytes() == left


def test_two_runs_that_record_to_the_same_file_lose_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "show.mkv"
    with live_sink(str(out)) as sink:
        write(sink, 5)
        other = live_sink(str(out))
        write(other, 9)
    assert caplog.messages == [f"another run records to {tmp_path / 'show.partial.mkv'}"]
    with pytest.raises(SinkError, match=r"meanwhile.*; what was recorded, 0\.3 s, is in .*show\.partial-2\.mkv"):
        other.finish()
    assert numbers_in(out) == list(range(5)) and numbers_in(tmp_path / "show.partial-2.mkv") == list(range(9))


def test_an_error_of_the_run_finishes_the_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, context = tmp_path / "show.mp4", live_context()
    with (pytest.raises(RuntimeError, match="the dream is broken"),
          open_sink(str(out), Camera(), RenderSettings(), show=context) as sink):
        write(sink, 60)
        raise RuntimeError("the dream is broken")
    assert names(tmp_path) == ["show.mp4"] and numbers_in(out) == list(range(60))
    assert caplog.messages == context.kept == [f"what was recorded, 0:02, is in {out}"]


def test_a_second_interruption_leaves_what_was_recorded(tmp_path: Path) -> None:
    """There is no time to finish; once that removed all of it."""
    out, context = tmp_path / "show.mp4", live_context()
    with pytest.raises(KeyboardInterrupt), open_sink(str(out), Camera(), RenderSettings(), show=context) as sink:
        write(sink, 150)
        deadline = time.monotonic() + 20
        while sink.bytes_written < 2000 and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert names(tmp_path) == ["show.partial.mp4"]
    found = numbers_in(tmp_path / "show.partial.mp4")
    assert len(found) > 10 and found[:10] == list(range(10))  # at the end pictures wait for those they are made from
    assert len(context.kept) == 1 and context.kept[0].endswith(f"is in {tmp_path / 'show.partial.mp4'}")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_refused_run_leaves_no_file(suffix: str, eager: Backend, tmp_path: Path,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    """A field that is too small for a layer is known only once the first picture is there; it stayed as a video."""
    sink = live_sink(str(tmp_path / f"a{suffix}"))
    with pytest.raises(UsageError, match="unknown flow"), sink:
        live(Ends(500), sink, eager, broken()).run()
    assert names(tmp_path) == [] and "Traceback" not in capfd.readouterr().err


def test_a_picture_s_time_is_exact_in_ticks_of_90_khz(tmp_path: Path) -> None:
    """As it was before; Matroska, in which a recording might also be kept meanwhile, would round it."""
    out = tmp_path / "a.mp4"
    with live_sink(str(out)) as sink:
        for ticks in (0, 3001, 5999, 10007):
            sink.write(marked(0, SIZE), timestamped_frame(marked(0, SIZE), float(Fraction(ticks, 90_000))))
    container: Any
    with av.open(str(out)) as container:
        assert [picture.pts * picture.time_base * 90_000 for picture in container.decode(video=0)] == [
            0, 3001, 5999, 10007]
