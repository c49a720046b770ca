"""Live sinks: none blocks the run, several work at once, and a lost receiver gets the stream again."""
from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support.broadcast import broadcasting, free_port, transport_stream
from support.clips import marked, number_of
from support.commands import ENVIRONMENT, fails, here
from support.live_sinks import GRAPH, Camera, live_context, live_sink, numbers_in, readable_frames, wait_for_line, write
from support.waiting import until

from streamdream.errors import Closed, SinkError, UsageError
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sinks.registry import open_sinks
from streamdream.media.sinks.tee import Tee
from streamdream.media.sinks.threaded import DroppingSink
from streamdream.media.sources.live import timestamped_frame
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import OutputTarget

SIZE = 160, 96
MAX_WRITE_SECONDS = 5.0
"""A write that waits for a receiver takes longer."""


def feed(sink: Any, seconds: float, first: int = 0, end: Callable[[], bool] = lambda: False) -> int:
    """Write 30 numbered pictures a second, with their times, for ``seconds`` or until ``end``; return the next number.

    Fail when a write waits.
    """
    began = time.perf_counter() - first / 30
    number = first
    while (number - first) / 30 < seconds and not end():
        time.sleep(max(0.0, began + number / 30 - time.perf_counter()))
        begin = time.perf_counter()
        sink.write(marked(number % 256, SIZE), timestamped_frame(marked(number % 256, SIZE), number / 30))
        assert time.perf_counter() - begin < MAX_WRITE_SECONDS
        number += 1
    return number


# --- several at once --------------------------------------------------------------------------------------------------

class Keeps(NullSink):
    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.count, self.fault, self.fault_at, self.ends = 0, fault, 3, ""

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.count += 1
        if self.fault and self.count == self.fault_at:
            raise self.fault

    def finish(self) -> None:
        self.ends += "f"

    def abort(self) -> None:
        self.ends += "a"


@pytest.mark.parametrize("place", [0, 1])
def test_a_failed_sink_is_finished_and_the_others_go_on(place: int) -> None:
    """Also the first one. A sink that failed was aborted, and its recording was lost."""
    bad, good, failures = Keeps(SinkError("the disk is full")), Keeps(), dict[str, str]()
    sinks = [good, bad] if place else [bad, good]
    with Tee(sinks, ["good", "bad"] if place else ["bad", "good"], failures) as tee:
        write(tee, 5)
    assert (bad.count, good.count) == (3, 5)
    assert bad.ends[0] == "f" and good.ends == "f"
    assert tee.warnings == ["the disk is full; the others went on"] and failures == {"bad": "the disk is full"}


def test_the_failure_of_the_last_sink_ends_the_run() -> None:
    bad, worse = Keeps(SinkError("the disk is full")), Keeps(SinkError("the wire is cut"))
    worse.fault_at = 5
    with pytest.raises(SinkError, match="the wire is cut"), Tee([bad, worse]) as tee:
        write(tee, 9)
    assert (bad.count, worse.count) == (3, 5)


class FailsAtTheEnd(Keeps):
    def finish(self) -> None:
        raise SinkError("the disk is full")


def test_a_failure_in_finish_leaves_the_other_sinks_whole() -> None:
    bad, good, failures = FailsAtTheEnd(), Keeps(), dict[str, str]()
    with Tee([bad, good], ["bad", "good"], failures) as tee:
        write(tee, 5)
    assert good.ends == "f" and failures == {"bad": "the disk is full"} and tee.warnings == ["the disk is full"]


def test_closing_any_window_ends_the_run() -> None:
    with pytest.raises(Closed), Tee([Keeps(), Keeps(Closed("the window was closed"))]) as tee:
        write(tee, 5)


class BlockedWriter:
    """Write no picture before ``release``."""

    bytes_written = 0
    kept = ""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.partial, self.release, self.numbers = OutputTarget("slow"), threading.Event(), list[int]()

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> int:
        return number_of(image)

    def write(self, item: int) -> None:
        self.release.wait()
        self.numbers.append(item)

    def complete(self) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...
    def keep(self) -> None: ...


def test_a_slow_recording_drops_new_pictures_and_blocks_no_other_sink() -> None:
    writer, other = BlockedWriter(), Keeps()
    with Tee([other, DroppingSink(writer, 8, remedy="--encoder-preset ultrafast is faster")]) as tee:
        write(tee, 40)
        writer.release.set()
    assert 8 <= len(writer.numbers) <= 12 and writer.numbers[:8] == list(range(8)) and other.count == 40
    assert re.fullmatch(r"slow was too slow: it holds \d+ of 40 pictures; --encoder-preset ultrafast is faster",
                        tee.warnings[0])


def test_a_slow_stream_drops_the_oldest_pictures() -> None:
    writer = BlockedWriter()
    with DroppingSink(writer, 2, drop_oldest=True) as sink:
        write(sink, 40)
        writer.release.set()
    assert writer.numbers[-2:] == [38, 39] and len(writer.numbers) <= 6


def test_names_of_sinks_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    out = str(tmp_path / "a.mp4")
    for names, words in (([out, out], "is given twice"), ([out, "b.xyz"], "window, virtualcam, null"),
                         ([out, str(tmp_path / "no" / "x.m3u8")], "no such folder")):
        with pytest.raises(UsageError, match=words):
            open_sinks(names, Camera(), RenderSettings(), False, live_context())
        assert list(tmp_path.iterdir()) == []


# --- recordings -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_of_a_day_with_gaps_keeps_its_times(suffix: str, tmp_path: Path) -> None:
    """A day, by the clock of its frames, which come seldom and unevenly: ticks of 1/90000 s do not fit 32 bits."""
    out = tmp_path / f"a{suffix}"
    times = [0.0, 0.031, 0.07, 1.5, *(3600.0 * hour + hour / 7 for hour in range(1, 25))]
    with live_sink(str(out)) as sink:
        for number, seconds in enumerate(times):
            sink.write(marked(number, SIZE), timestamped_frame(marked(number, SIZE), seconds))
    file: Any
    with av.open(str(out)) as file:
        found = [(float(picture.pts * picture.time_base), number_of(picture.to_ndarray(format="rgb24")))
                 for picture in file.decode(video=0)]
    assert [number for _, number in found] == list(range(len(times)))
    assert [seconds for seconds, _ in found] == pytest.approx(times, abs=2e-3)


# --- streams out ------------------------------------------------------------------------------------------------------

class Receiver:
    """Decode what comes to ``url`` in a thread, until it ends; as a server, with ``listen``."""

    def __init__(self, url: str, **options: str) -> None:
        self.numbers: list[int] = []
        self._arguments = url, options
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        url, options = self._arguments
        container: Any
        with contextlib.suppress(av.FFmpegError), av.open(url, options=options, timeout=(10, 1)) as container:
            for picture in container.decode(video=0):
                self.numbers.append(number_of(picture.to_ndarray(format="rgb24")))

    def join(self) -> list[int]:
        self._thread.join()
        return self.numbers


def test_a_udp_stream_is_received() -> None:
    port = free_port(socket.SOCK_DGRAM)
    receiver = Receiver(f"udp://127.0.0.1:{port}", fflags="nobuffer", analyzeduration="500000")
    with live_sink(f"udp://127.0.0.1:{port}") as sink:
        feed(sink, 6, end=lambda: len(receiver.numbers) > 20)
    numbers = receiver.join()
    assert len(numbers) > 20 and sum(b == a + 1 for a, b in pairwise(numbers)) > 15


@pytest.mark.parametrize("scheme", ["tcp", pytest.param("rtmp", marks=pytest.mark.soak)])
def test_a_receiver_that_accepts_one_connection_gets_the_stream(scheme: str) -> None:
    """As ``ffmpeg -listen 1`` does. A connection made to try whether it listens was the only one that it accepted."""
    port = free_port()
    url = f"{scheme}://127.0.0.1:{port}/live/key"
    receiver = Receiver(f"{url}?listen=1" if scheme == "tcp" else url, **{} if scheme == "tcp" else {"listen": "1"})
    wait_for_listener(port)
    with live_sink(url) as sink:
        feed(sink, 6, end=lambda: len(receiver.numbers) > 20)
    assert len(receiver.join()) > 20


def wait_for_listener(port: int) -> None:
    until(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text())


def test_a_lost_receiver_is_connected_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                                  ) -> None:
    """Meanwhile the run goes on; a returned one gets pictures that can be decoded."""
    caplog.set_level(logging.INFO, "streamdream")
    monkeypatch.setattr("streamdream.media.sinks.stream.STABLE_SECONDS", 0.3)
    monkeypatch.setattr("streamdream.media.sinks.stream.FIRST_WAIT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        taken: list[bytes] = []
        go = threading.Event()
        listener = threading.Thread(target=serve, args=(server, taken, go))
        listener.start()
        sink = live_sink(f"tcp://127.0.0.1:{port}")
        number = feed(sink, 8, end=lambda: len(taken) == 1 and "trying again" in caplog.text)
        assert "is gone" in caplog.text
        go.set()
        feed(sink, 12, number, end=lambda: len(taken) == 2)
        listener.join()
        sink.abort()
    assert any("was lost once" in text for text in sink.warnings)
    (Path(os.environ["STREAMDREAM_CACHE"]) / "second.ts").write_bytes(taken[1])
    assert len(numbers_in(Path(os.environ["STREAMDREAM_CACHE"]) / "second.ts")) > 3


@pytest.mark.soak
def test_a_receiver_that_is_lost_at_the_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody got the end of the stream; the run's exit code was 0."""
    monkeypatch.setattr("streamdream.media.sinks.stream.STABLE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        name = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        taken: list[bytes] = []
        listener = threading.Thread(target=serve, args=(server, taken, threading.Event(), 1))
        listener.start()
        sink = live_sink(name)
        feed(sink, 8, end=lambda: bool(sink.warnings))
        listener.join()
    with pytest.raises(SinkError, match="was gone at the end, for"):
        sink.finish()


def serve(server: socket.socket, taken: list[bytes], go: threading.Event, times: int = 2) -> None:
    """Take 20 kB and close; do so once more, when told. Connections that bring nothing are attempts."""
    for wanted in range(1, times + 1):
        if wanted == 2:
            go.wait(10)
        data = b""
        while not data:
            with contextlib.closing(server.accept()[0]) as client:
                client.settimeout(5)
                while len(data) < 20_000 and (part := client.recv(1 << 16)):
                    data += part
        taken.append(data)


def test_a_missing_receiver_is_an_error_without_another_attempt(caplog: pytest.LogCaptureFixture) -> None:
    for scheme in ("rtmp", "tcp"):
        with pytest.raises(SinkError, match=r"cannot be reached \(connection refused\)"):
            live_sink(f"{scheme}://127.0.0.1:{free_port()}/live/key")
    assert "trying again" not in caplog.text


def test_hls_can_be_read_while_it_grows_and_after(tmp_path: Path) -> None:
    out = tmp_path / "show.m3u8"
    with live_sink(str(out)) as sink:
        for number in range(600):  # 20 s by their times; the encoder need not wait for them
            sink.write(marked(number % 256, SIZE), timestamped_frame(marked(number % 256, SIZE), number / 30))
            time.sleep(0.005)
            if number == 300:
                assert "#EXT-X-ENDLIST" not in out.read_text() and out.read_text().count(".ts") >= 2
    text = out.read_text()
    assert text.count(".ts") <= 6 and "#EXT-X-ENDLIST" in text
    assert len(list(tmp_path.glob("*.ts"))) < 9  # older ones are deleted
    assert len(numbers_in(out)) > 60
    with pytest.raises(UsageError, match="-y overwrites it"):
        live_sink(str(out))


# --- a virtual camera -------------------------------------------------------------------------------------------------

class FakeDevice:
    """A backend of pyvirtualcam that keeps what it is sent."""

    sent: list[Any] = []  # noqa: RUF012
    made_for: dict[str, Any] = {}  # noqa: RUF012
    closed = 0

    def __init__(self, **about: Any) -> None:
        FakeDevice.made_for = about

    def send(self, frame: NDArray[np.uint8]) -> None:
        self.sent.append(frame.copy())

    def close(self) -> None:
        FakeDevice.closed += 1

    def device(self) -> str:
        return "fake"

    def native_fourcc(self) -> None:
        return None


def test_a_virtual_camera_gets_the_pictures() -> None:
    camera = pytest.importorskip("pyvirtualcam.camera")
    before = dict(camera.BACKENDS)
    camera.BACKENDS.clear()
    camera.register_backend("fake", FakeDevice)
    try:
        with live_sink("virtualcam:fake") as sink:
            write(sink, 2)
            until(lambda: len(FakeDevice.sent) == 2)
    finally:
        camera.BACKENDS.clear()
        camera.BACKENDS.update(before)
    about = FakeDevice.made_for
    assert (about["width"], about["height"], about["fps"], about["device"]) == (*SIZE, 30.0, "fake")
    assert [number_of(frame.reshape(96, 160, 3)) for frame in FakeDevice.sent] == [0, 1] and FakeDevice.closed == 1


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="there may be one here")
def test_a_missing_virtual_camera_is_one_error_line() -> None:
    pytest.importorskip("pyvirtualcam")
    with pytest.raises(SinkError, match="there is no virtual camera here"):
        live_sink("virtualcam")


# --- the end ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_signal_ends_a_run_whose_source_is_lost(number: signal.Signals, tmp_path: Path) -> None:
    """The recording is complete."""
    out = tmp_path / "a.mp4"
    with broadcasting(transport_stream(90, SIZE)) as server:
        process = subprocess.Popen([sys.executable, "-m", "streamdream", "live", "--source", server.url, "--sink",
                                    str(out), "--field-height", "96"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=ENVIRONMENT)
        assert process.stderr is not None
        try:
            wait_for_line(process.stderr, "Ctrl-C ends it")
            until(lambda: readable_frames(tmp_path / "a.partial.mp4"), 60)
            server.closed = True
            server.cut()
            wait_for_line(process.stderr, "trying again")
            process.send_signal(number)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert "dreams/s" in output and "was lost" in errors
    assert numbers_in(out)


def test_a_refused_sink_is_one_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "live", "--source", GRAPH, "--sink", f"rtmp://127.0.0.1:{free_port()}/live/x"), 1,
          "cannot be reached (connection refused)")
