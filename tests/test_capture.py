"""Live sources: what is lost comes back, what is damaged is skipped, and what follows them never waits."""
from __future__ import annotations

import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.broadcast import broadcasting, free_port, transport_stream
from support.clips import Clip, make, number_of
from support.commands import here
from support.waiting import until

from streamdream.errors import SourceError, StreamdreamError, UsageError
from streamdream.media.sources import cameras, v4l2
from streamdream.media.sources.camera_list import Mode, find_camera, list_cameras
from streamdream.media.sources.live import open_live
from streamdream.media.sources.network import PROBE, Address, NetworkReader, PlayoutClock
from streamdream.media.sources.reconnecting import ReconnectingSource, measured_rate
from streamdream.settings import LiveSettings

pytestmark = pytest.mark.alone

SIZE = 160, 96


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    return transport_stream(90, SIZE)


class Watcher:
    """Reads a source in a thread and keeps what it gave: number in the picture, time of the frame, when it came."""

    def __init__(self, source: Any) -> None:
        self.seen: list[tuple[int, float, float]] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.error: BaseException | None = None
        self._source = source
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            for frame in self._source:
                self.shapes.add(frame.image.shape)
                self.seen.append((number_of(frame.image), frame.pts_seconds, time.perf_counter()))
        except StreamdreamError as error:
            self.error = error

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        until(condition, seconds, about=lambda: self.seen[-5:])

    def wait_for_news(self, seconds: float = 10) -> None:
        """Until the picture changes three times."""
        begin, changes = len(self.seen), 3
        self.wait_for(lambda: len({number for number, _, _ in self.seen[begin:]}) > changes, seconds)

    def wait_for_frames(self, count: int) -> None:
        begin = len(self.seen)
        self.wait_for(lambda: len(self.seen) >= begin + count)

    def end(self) -> None:
        self._source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def longest_gap(self) -> float:
        return max(b - a for (_, _, a), (_, _, b) in pairwise(self.seen))


@pytest.fixture()
def watch() -> Iterator[Callable[[Any], Watcher]]:
    watchers: list[Watcher] = []

    def begin(source: Any) -> Watcher:
        watchers.append(Watcher(source))
        return watchers[-1]

    yield begin
    for watcher in watchers:
        watcher.end()
    assert not [thread for thread in threading.enumerate() if thread.name == "streamdream-read"]


# --- network streams --------------------------------------------------------------------------------------------------

def test_a_stream_that_is_cut_comes_back(pieces: list[bytes], watch: Callable[[Any], Watcher],
                                         caplog: pytest.LogCaptureFixture) -> None:
    """Meanwhile its last picture stays, and is given again and again, with times that go on."""
    caplog.set_level(logging.INFO, "streamdream")
    with broadcasting(pieces) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.closed = True
        server.cut()
        watcher.wait_for(lambda: "trying again in 0.5 s" in caplog.text)
        begin = len(watcher.seen)
        watcher.wait_for(lambda: len(watcher.seen) > begin + 3)
        assert len({number for number, _, _ in watcher.seen[begin:]}) == 1
        server.closed = False
        watcher.wait_for_news()
        times = [seconds for _, seconds, _ in watcher.seen]
        assert times == sorted(times) and watcher.longest_gap() < 1 and watcher.error is None
        assert "is back after" in caplog.text and any("was lost once" in text for text in source.warnings)


def test_a_stall_is_no_loss(watch: Callable[[Any], Watcher]) -> None:
    """The connection holds, so pictures move again as soon as there are some."""
    with broadcasting(transport_stream(250, SIZE)) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.stalled = True
        begin = time.perf_counter()
        time.sleep(2)
        during = [number for number, _, at in watcher.seen if at > begin + 0.5]
        server.stalled = False
        resumed = time.perf_counter()
        watcher.wait_for_news()
        assert len(set(during)) == 1 and len(during) >= 8
        first = next(at for number, _, at in watcher.seen if at > resumed and number != during[-1])
        assert first - resumed < 1 and server.connections == 1 and source.warnings == []


def test_a_silent_stream_is_opened_anew(watch: Callable[[Any], Watcher], pieces: list[bytes],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.network.SILENT_SECONDS", 0.5)
    with broadcasting(pieces) as server:
        watcher = watch(open_live(server.url))
        watcher.wait_for_news()
        server.stalled = True
        watcher.wait_for(lambda: server.connections > 1)
        server.stalled = False
        watcher.wait_for_news()


def test_damage_is_counted_and_skipped(pieces: list[bytes], watch: Callable[[Any], Watcher]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    with broadcasting(pieces, port) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.damaged = True
        watcher.wait_for(lambda: any("damaged packets" in text for text in source.warnings))
        watcher.wait_for_news()
        server.damaged = False
        watcher.wait_for_news()
        watcher.end()  # while there is something to read
        assert watcher.error is None and not any("lost" in text for text in source.warnings)


def test_joining_a_stream_between_key_frames_is_no_damage(tmp_path: Path) -> None:
    """Nothing can be decoded before the first key frame: 145 packets were called damaged."""
    pieces = transport_stream(130, SIZE, key_distance=100)
    (tmp_path / "a.ts").write_bytes(b"".join(pieces[8:]))
    reader = NetworkReader(Address("a.ts", str(tmp_path / "a.ts"), option_sets=(PROBE,)), threading.Event())
    assert (number_of(next(iter(reader))), reader.damaged) == (100, 0)
    reader.close()


def test_a_loss_that_lasts_is_counted_until_the_end(pieces: list[bytes], watch: Callable[[Any], Watcher],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """A UDP stream that never came back was lost "for 0.0 s in all", while one attempt to open it took 10 s."""
    monkeypatch.setattr("streamdream.media.sources.network.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("streamdream.media.sources.network.OPEN_SECONDS", 6.0)
    with broadcasting(pieces, free_port(socket.SOCK_DGRAM)) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.stalled = True
        watcher.wait_for(lambda: any(re.search(r"was lost once, for (1\.[5-9]|[2-9]\.\d) s in all", text)
                                     for text in source.warnings), 4)
        server.stalled = False
        watcher.wait_for_news()


def test_another_size_is_fitted_into_the_first(pieces: list[bytes], watch: Callable[[Any], Watcher]) -> None:
    """In the middle of a stream, and after it was cut. A square picture in a wide one has black bars beside it."""
    with broadcasting(pieces) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.pieces = transport_stream(60, (96, 96), first=server.sent)
        watcher.wait_for(lambda: any("changes its size" in text for text in source.warnings))
        server.pieces = transport_stream(60, (320, 192), first=server.sent)
        server.cut()
        watcher.wait_for_news()
        watcher.end()
        assert (source.width, source.height) == SIZE and watcher.shapes == {(96, 160, 3)}


def test_what_never_opened_is_an_error_at_once(tmp_path: Path) -> None:
    for name, words in ((f"tcp://127.0.0.1:{free_port()}", "refused"), ("v4l2:/dev/null", "v4l2:/dev/null"),
                        (f"http://127.0.0.1:{free_port()}/x.m3u8", "refused")):
        begin = time.monotonic()
        with pytest.raises(SourceError, match=words):
            open_live(name)
        assert time.monotonic() - begin < 5
    with pytest.raises(UsageError, match="neither a file nor another source: webcam:0"):
        open_live("webcm:0")
    with pytest.raises(UsageError, match="is not on this system"):
        open_live("avfoundation:0" if os.name == "posix" and Path("/proc").exists() else "v4l2:/dev/video0")


def test_a_silent_address_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.network.OPEN_SECONDS", 0.5)
    with pytest.raises(SourceError, match=r"nothing came for 0\.5 s"):
        open_live(f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}")


def test_a_file_by_http_has_its_own_pace_and_end(tmp_path: Path) -> None:
    from support.unruly_server import running_server

    make(tmp_path / "a.mp4", Clip(frames=20, size=SIZE))
    with running_server() as server:
        server.files["/a.mp4"] = (tmp_path / "a.mp4").read_bytes()
        begin = time.monotonic()
        with open_live(server.url + "/a.mp4", LiveSettings(loop=False)) as source:
            numbers = [number_of(frame.image) for frame in source]
        assert time.monotonic() - begin > 15 / 30 and numbers[-1] == 19 and len(set(numbers)) > 10
        with open_live(server.url + "/a.mp4") as source:
            looped = [number_of(frame.image) for frame, _ in zip(source, range(50), strict=False)]
        assert any(later < sooner for sooner, later in pairwise(looped))  # the beginning comes again


def test_a_picture_that_cannot_be_decoded_is_no_end(tmp_path: Path) -> None:
    """Bytes in the middle of an mp4 are overwritten: the decoder refuses what it gets there."""
    from support.unruly_server import running_server

    make(tmp_path / "a.mp4", Clip(frames=30, size=SIZE, options={"g": "1", "crf": "10"}))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    index = content.index(b"moov")  # behind the pictures
    content[index // 3: index // 2] = b"\xff" * (index // 2 - index // 3)
    with running_server() as server:
        server.files["/a.mp4"] = bytes(content)
        with open_live(server.url + "/a.mp4", LiveSettings(loop=False)) as source:
            numbers = [number_of(frame.image) for frame in source]
    assert numbers[-1] == 29 and re.search(r"\d+ damaged packets of .*/a.mp4 were skipped", source.warnings[0])


def test_a_picture_stays_as_a_live_source(tmp_path: Path) -> None:
    """It was "damaged, or not a video"."""
    cv2.imwrite(str(tmp_path / "a.jpg"), cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 3))
    with open_live(str(tmp_path / "a.jpg")) as source:
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert len(frames) == 5 and frames[4].pts > frames[3].pts and frames[0].image is frames[4].image


def test_bursts_are_played_at_their_own_pace() -> None:
    playout, now = PlayoutClock(), 100.0
    assert playout.wait_seconds(5.0, now) == 0
    assert playout.wait_seconds(5.5, now + 0.1) == pytest.approx(0.4)
    assert playout.wait_seconds(6.0, now + 1.2) == 0  # a little late is shown at once, and changes nothing
    assert playout.wait_seconds(6.5, now + 1.2) == pytest.approx(0.3)
    assert playout.wait_seconds(7.0, now + 9) == 0  # much too late: from here on, this is the clock
    assert playout.wait_seconds(7.2, now + 9) == pytest.approx(0.2)
    assert playout.wait_seconds(900.0, now + 9) == 0


# --- cameras ----------------------------------------------------------------------------------------------------------

def jpeg_film(path: Path, first: int, frames: int) -> None:
    from support.clips import marked

    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, SIZE)
    for number in range(frames):
        film.write(marked(first + number, SIZE))
    film.release()


def test_an_unplugged_camera_is_opened_again(tmp_path: Path, watch: Callable[[Any], Watcher]) -> None:
    """OpenCV's own reader on films: at the end of one it is as if the plug was pulled."""
    films = [tmp_path / "1.avi", tmp_path / "2.avi"]
    jpeg_film(films[0], 0, 30)
    jpeg_film(films[1], 100, 30)
    opened: list[Path] = []

    def open(stop: threading.Event) -> cameras.OpenCvReader:
        if len(opened) == 1 and time.perf_counter() < plug_at[0]:
            raise SourceError("there is no camera 0 here")
        opened.append(films[min(len(opened), 1)])
        return cameras.OpenCvReader("webcam:0", lambda: cv2.VideoCapture(str(opened[-1])), stop)

    plug_at = [time.perf_counter() + 1]
    source = ReconnectingSource("webcam:0", open)
    watcher = watch(source)
    watcher.wait_for(lambda: any(number >= 100 for number, _, _ in watcher.seen))
    assert any("webcam:0 was lost" in text for text in source.warnings) and watcher.error is None


def test_a_camera_that_refuses_is_named() -> None:
    class Mute:
        def read(self) -> tuple[bool, None]:
            return False, None

        def release(self) -> None:
            pass

    with pytest.raises(SourceError, match="webcam:0 gives no picture: is another program using it"):
        ReconnectingSource("webcam:0", lambda stop: cameras.OpenCvReader("webcam:0", Mute, stop))


class FakeCamera:
    """A ``cv2.VideoCapture`` that gives 60 pictures a second; after ``pictures`` of them its ``read`` blocks."""

    def __init__(self, value: int = 200, pictures: int = 10_000) -> None:
        self._image, self._pictures = np.full((96, 160, 3), value, np.uint8), pictures
        self.release_me = threading.Event()

    def read(self) -> tuple[bool, NDArray[np.uint8]]:
        self._pictures -= 1
        self.release_me.wait(1 / 60 if self._pictures >= 0 else None)
        return True, self._image

    def release(self) -> None:
        pass


def test_a_camera_that_blocks_is_reopened(watch: Callable[[Any], Watcher], monkeypatch: pytest.MonkeyPatch,
                                          caplog: pytest.LogCaptureFixture) -> None:
    """Its last picture stood still for 18 s without a word, and the report counted it as new pictures."""
    monkeypatch.setattr("streamdream.media.sources.cameras.SILENT_SECONDS", 0.3)
    stuck, healthy = FakeCamera(pictures=30), FakeCamera(value=40)
    devices = [stuck, healthy]
    source = ReconnectingSource("webcam:0", lambda stop: cameras.OpenCvReader("webcam:0", lambda: devices.pop(0), stop))
    try:
        watcher = watch(source)
        watcher.wait_for(lambda: "webcam:0 has given no picture for 0.3 s; trying again" in caplog.text)
        watcher.wait_for(lambda: not devices and len(watcher.seen) > 10)
        watcher.wait_for_frames(5)
        assert any("webcam:0 was lost once" in text for text in source.warnings) and watcher.error is None
    finally:
        stuck.release_me.set()


def test_a_camera_that_never_gives_a_picture_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.cameras.OPEN_SECONDS", 0.3)
    stuck = FakeCamera(pictures=0)
    with pytest.raises(SourceError, match=r"webcam:0 has given no picture for 0\.3 s"):
        ReconnectingSource("webcam:0", lambda stop: cameras.OpenCvReader("webcam:0", lambda: stuck, stop))
    stuck.release_me.set()


@pytest.mark.parametrize("value", [0, 120])
def test_only_a_black_camera_causes_a_warning(value: int, watch: Callable[[Any], Watcher],
                                              monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                              ) -> None:
    monkeypatch.setattr("streamdream.media.sources.reconnecting.BLACK_SECONDS", 0.3)
    device = FakeCamera(value)
    source = ReconnectingSource("webcam:0", lambda stop: cameras.OpenCvReader("webcam:0", lambda: device, stop),
                                is_camera=True)
    watch(source).wait_for_frames(40)
    assert ("only black pictures for 0.3 s" in caplog.text) == (value == 0)
    assert any("only black pictures" in text for text in source.warnings) == (value == 0)


def test_a_camera_that_has_nothing_yet_is_asked_again() -> None:
    """FFmpeg's AVFoundation raises BlockingIOError until there is a picture."""
    from av.error import BlockingIOError as NotYet

    reader = NetworkReader(Address("x", "testsrc2=size=160x96", "lavfi"), threading.Event())
    container, asked = reader._container, []

    class Hesitant:
        def demux(self, stream: Any) -> Iterator[Any]:
            asked.append(stream)
            if len(asked) < 4:
                raise NotYet(11, "Resource temporarily unavailable")
            yield from container.demux(stream)

        def close(self) -> None:
            container.close()

    reader._container = Hesitant()
    assert next(iter(reader)).shape == (96, 160, 3) and len(asked) == 4
    reader.close()


def test_the_rate_is_measured_not_believed(watch: Callable[[Any], Watcher]) -> None:
    """A camera that was asked for 30 and gives 20."""
    class Slow:
        rate, color, pixel_aspect, damaged = Fraction(0), cameras.OpenCvReader.color, Fraction(1), 0

        def __iter__(self) -> Iterator[NDArray[np.uint8]]:
            begin = time.perf_counter()
            for number in range(1000):
                time.sleep(max(0, begin + number / 20 - time.perf_counter()))
                yield np.zeros((96, 160, 3), np.uint8)

        def close(self) -> None:
            pass

    with ReconnectingSource("webcam:0", lambda stop: Slow(), requested_rate=30) as source:
        assert 15 <= source.rate < 24
        assert "webcam:0 gives" in source.warnings[0] and "not 30" in source.warnings[0]


def test_rates_near_a_usual_one_are_meant_to_be_it() -> None:
    assert measured_rate([number / 29.6 for number in range(12)]) == 30
    assert measured_rate([number / 7.45 for number in range(12)]) == Fraction(15, 2)
    assert float(measured_rate([number / 41 for number in range(12)])) == pytest.approx(41, abs=0.1)


def test_modes_are_asked_from_the_driver() -> None:
    """A driver that answers as linux/videodev2.h lays its structures out: MJPG in two sizes, YUYV in a range."""
    sizes = {b"MJPG": [(640, 480), (1280, 720)]}

    def driver(request: int, data: bytearray) -> bool:
        index = struct.unpack_from("=I", data)[0]
        pixels = bytes(data[4:8])
        if request == 0xC0405602 and index < 2:
            data[44:48] = (b"MJPG", b"YUYV")[index]
        elif request == 0xC02C564A and pixels in sizes and index < 2:
            struct.pack_into("=III", data, 8, 1, *sizes[pixels][index])
        elif request == 0xC02C564A and pixels == b"YUYV" and not index:
            struct.pack_into("=I6I", data, 8, 3, 32, 1920, 2, 32, 1080, 2)
        elif request == 0xC034564B and pixels == b"MJPG" and index < 2:
            assert struct.unpack_from("=II", data, 8) in sizes[pixels]
            struct.pack_into("=III", data, 16, 1, *((1, 60), (1001, 30000))[index])
        else:
            return False
        return True

    assert [str(Mode(*mode)) for mode in v4l2.modes(driver)] == [
        "MJPG 640x480 at 60, 29.97", "MJPG 1280x720 at 60, 29.97", "YUYV 1920x1080"]


def test_cameras_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "cameras")
    assert result.returncode == 0 and result.stderr == ""
    connected = list_cameras()
    assert len(result.stdout.splitlines()) >= max(1, len(connected))
    if not connected:
        assert result.stdout.startswith("no camera is here: is it plugged in")
        with pytest.raises(SourceError, match="no camera is called 'front'; no camera is here"):
            find_camera("front")


# --- files ------------------------------------------------------------------------------------------------------------

def test_a_slow_file_gives_its_picture_again(tmp_path: Path) -> None:
    """One picture a second: what follows it would sleep for so long."""
    make(tmp_path / "a.mp4", Clip(frames=3, size=SIZE, pts=[0, 30, 60]))
    with open_live(str(tmp_path / "a.mp4")) as source:
        seen = [(number_of(frame.image), frame.pts_seconds) for frame, _ in zip(source, range(14), strict=False)]
    assert [number for number, _ in seen].count(0) >= 8 and seen[-1][0] == 1
    times = [seconds for _, seconds in seen]
    assert times == sorted(times) and dict(reversed(seen))[1] == pytest.approx(1, abs=0.01)


def test_closing_wakes_a_file_that_waits(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=2, size=SIZE, pts=[0, 3000]))
    source = open_live(str(tmp_path / "a.mp4"))
    watcher = Watcher(source)
    watcher.wait_for(lambda: len(watcher.seen) > 2)
    begin = time.monotonic()
    watcher.end()
    assert time.monotonic() - begin < 2


