"""Cameras: by OpenCV (a number or a name), or by the FFmpeg device of the platform."""
from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, UsageError
from streamdream.media.input_container import ColorTags
from streamdream.media.opencv import cv2
from streamdream.media.sources.camera_list import Camera, find_camera
from streamdream.media.sources.network import Address, NetworkReader

LISTING = "streamdream cameras lists what is here"
COMMON_SIZES = ((1280, 720), (640, 480))
"""Sizes to request, in turn, until the camera gives pictures."""
DEFAULT_RATE = 30.0
FIRST_READ_ATTEMPTS = 50
"""A camera that wakes up may fail this often before its first picture."""
OPEN_SECONDS, SILENT_SECONDS = 20.0, 5.0
"""How long opening may take, up to the first picture; a camera without a new picture for this long is lost."""
POLL_SECONDS, CLOSE_SECONDS = 0.1, 1.0


@dataclass(frozen=True)
class CaptureRequest:
    """What a camera or a screen is asked for; it may give something else."""

    size: tuple[int, int] | None = None
    """Width and height; None tries the common ones."""
    rate: float = 0
    """Pictures per second; 0 is the default rate."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return (self.size,) if self.size else COMMON_SIZES

    @property
    def requested_rate(self) -> float:
        return self.rate or DEFAULT_RATE


class OpenCvReader:
    """Pictures of the ``cv2.VideoCapture`` that ``open_device`` returns; see ``reconnecting.Reader``.

    OpenCV's calls may block for ever, so they run in a thread of their own, which is left alone when it is stuck.
    Raises SourceError when no picture arrives, and what ``open_device`` raises.
    """

    rate = Fraction(0)
    color = ColorTags()
    pixel_aspect = Fraction(1)
    damaged = 0

    def __init__(self, name: str, open_device: Callable[[], Any], stop: threading.Event) -> None:
        self._name, self._open_device, self._stop = name, open_device, stop
        self._results: queue.Queue[NDArray[np.uint8] | BaseException | None] = queue.Queue(1)
        """BGR pictures; None for a failed read."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="streamdream-camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        image = self._next(OPEN_SECONDS)
        for _ in range(FIRST_READ_ATTEMPTS):
            if image is not None or self._stop.wait(0.02):
                break
            image = self._next(OPEN_SECONDS)
        if image is None:
            raise SourceError(f"{self._name} gives no picture: is another program using it?")
        while image is not None:
            yield cv2().cvtColor(image, cv2().COLOR_BGR2RGB)
            image = self._next(SILENT_SECONDS)
        if not self._stop.is_set():
            raise SourceError(f"{self._name} gives no more pictures: was it unplugged?")

    def _next(self, timeout_seconds: float) -> NDArray[np.uint8] | None:
        """The result of the next read; None when it failed, or at the end."""
        deadline = time.perf_counter() + timeout_seconds
        while not self._stop.is_set():
            try:
                result = self._results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if time.perf_counter() > deadline:
                    raise SourceError(f"{self._name} has given no picture for {timeout_seconds:g} s") from None
                continue
            if isinstance(result, BaseException):
                raise result
            return result
        return None

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            self._results.get_nowait()  # the thread may wait for room
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            device = self._open_device()
            try:
                while not self._closed.is_set():
                    ok, image = device.read()
                    self._results.put(image if ok else None)
            finally:
                device.release()
        except BaseException as error:
            self._results.put(error)


def open_webcam(name: str, request: CaptureRequest) -> Callable[[threading.Event], OpenCvReader]:
    """``webcam:0`` or ``webcam:Logitech``; looked up at each opening, since the number may change with the plug."""
    which = name.partition(":")[2] or "0"
    return lambda stop: OpenCvReader(name, lambda: _open_device(name, find_camera(which), request), stop)


def _open_device(name: str, camera: Camera, request: CaptureRequest) -> Any:
    """Request MJPG before size and rate: raw pictures of 720p at 30 a second exceed USB 2.

    DirectShow takes all of it only when the camera is opened. Raises SourceError.
    """
    cv = cv2()
    if sys.platform.startswith("linux") and not Path(f"/dev/video{camera.index}").exists():
        raise SourceError(f"there is no camera {camera.index} here; {LISTING}")
    mjpg = cv.VideoWriter_fourcc(*"MJPG")
    for width, height in request.sizes:
        requested = [(cv.CAP_PROP_FOURCC, mjpg), (cv.CAP_PROP_FRAME_WIDTH, width),
                     (cv.CAP_PROP_FRAME_HEIGHT, height), (cv.CAP_PROP_FPS, request.requested_rate)]
        if sys.platform == "win32":
            device = cv.VideoCapture(camera.index, cv.CAP_DSHOW, [int(number) for pair in requested for number in pair])
        else:
            device = cv.VideoCapture(camera.index, camera.backend)
        if not device.isOpened():
            break
        for key, value in requested if sys.platform != "win32" else ():
            device.set(key, value)
        device.set(cv.CAP_PROP_BUFFERSIZE, 1)  # V4L2 only; other backends give the newest picture anyway
        if device.read()[0]:
            return device
        device.release()
    raise SourceError(f"{name} cannot be opened: is another program using it? {LISTING}")


AV_DEVICES = {"v4l2": ("linux", "/dev/video0"), "avfoundation": ("darwin", "0"), "dshow": ("win32", "NAME")}
"""FFmpeg's devices: the platform, and an example of a name."""


def open_av_device(name: str, request: CaptureRequest) -> Callable[[threading.Event], NetworkReader]:
    """``v4l2:/dev/video0``, ``avfoundation:0`` or ``dshow:NAME``. Raises UsageError on another system."""
    kind, _, which = name.partition(":")
    platform, example = AV_DEVICES[kind]
    if not sys.platform.startswith(platform):
        raise UsageError(f"{kind} is not on this system: --source webcam:0 works on all")
    if not which:
        raise UsageError(f"--source is {name!r}, but a camera needs a name: {kind}:{example}")
    target = f"video={which}" if kind == "dshow" else which
    address = Address(name, target, kind, _option_sets(kind, request))
    return lambda stop: NetworkReader(address, stop)


def _option_sets(kind: str, request: CaptureRequest) -> tuple[dict[str, str], ...]:
    """Compressed pictures first, as in ``_open_device``; at last the defaults of the camera."""
    compressed = {"v4l2": {"input_format": "mjpeg"}, "dshow": {"vcodec": "mjpeg"}}.get(kind, {})
    rate = {"framerate": f"{request.requested_rate:g}"}
    sized = [{"video_size": f"{width}x{height}"} for width, height in request.sizes]
    ladder = [size | rate | compressed for size in sized] + [size | rate for size in sized] + [rate, {}]
    return tuple({"fflags": "nobuffer", **options} for options in ladder)
