"""Cameras as live sources: opened again after a loss, their rate measured, their modes and names listed."""
from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import marked
from support.commands import here
from support.source_watcher import Watcher

from streamdream.errors import SourceError
from streamdream.media.sources import cameras, v4l2
from streamdream.media.sources.camera_list import Mode, find_camera, list_cameras
from streamdream.media.sources.network import Address, NetworkReader
from streamdream.media.sources.reconnecting import ReconnectingSource, measured_rate

SIZE = 160, 96


def jpeg_film(path: Path, first: int, frames: int) -> None:
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
    attempts: list[int] = []  # how many were opened before each

    def open(stop: threading.Event) -> cameras.OpenCvReader:
        attempts.append(len(opened))
        if attempts.count(1) == 1:  # the first one after the loss
            raise SourceError("there is no camera 0 here")
        opened.append(films[min(len(opened), 1)])
        return cameras.OpenCvReader("webcam:0", lambda: cv2.VideoCapture(str(opened[-1])), stop)

    source = ReconnectingSource("webcam:0", open)
    watcher = watch(source)
    watcher.wait_for(lambda: any(number >= 100 for number, _ in watcher.seen))
    assert any("webcam:0 was lost" in text for text in source.warnings) and watcher.error is None


def test_a_camera_without_pictures_is_an_error_that_names_it() -> None:
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
    monkeypatch.setattr("streamdream.media.sources.cameras.SILENT_SECONDS", 0.5)
    stuck, healthy = FakeCamera(pictures=30), FakeCamera(value=40)
    devices = [stuck, healthy]
    source = ReconnectingSource("webcam:0", lambda stop: cameras.OpenCvReader("webcam:0", lambda: devices.pop(0), stop))
    try:
        watcher = watch(source)
        watcher.wait_for(lambda: "webcam:0 has given no picture for 0.5 s; trying again" in caplog.text)
        watcher.wait_for(lambda: not devices and len(watcher.seen) > 10)
        watcher.wait_for_frames(5)
        assert any("webcam:0 was lost once" in text for text in source.warnings) and watcher.error is None
    finally:
        stuck.release_me.set()


def test_a_camera_that_blocks_at_once_is_an_error_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_camera_that_is_not_ready_is_read_again() -> None:
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


def test_the_rate_of_a_camera_is_measured(watch: Callable[[Any], Watcher]) -> None:
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


def test_a_rate_near_a_usual_one_is_rounded_to_it() -> None:
    assert measured_rate([number / 29.6 for number in range(12)]) == 30
    assert measured_rate([number / 7.45 for number in range(12)]) == Fraction(15, 2)
    assert float(measured_rate([number / 41 for number in range(12)])) == pytest.approx(41, abs=0.1)


def test_modes_are_read_from_the_driver() -> None:
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
