"""Cameras: through OpenCV by number or by name, or through FFmpeg's device of each system."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, UsageError
from streamdream.media.container import ColorTags
from streamdream.media.opencv import cv2
from streamdream.media.sources.camera_list import Camera, find_camera
from streamdream.media.sources.network import Address, NetworkReader

LISTING = "streamdream cameras lists what is here"
COMMON_SIZES = ((1280, 720), (640, 480))
"""A camera is asked for them, in turn, until one gives pictures."""
DEFAULT_RATE = 30.0
FIRST_READ_ATTEMPTS = 50
"""A camera may fail to give its first picture so often, while it wakes."""


@dataclass(frozen=True)
class CaptureRequest:
    """What a camera or a screen is asked for; what it gives is what is used."""

    size: tuple[int, int] | None = None
    """Width and height; None tries the usual ones."""
    rate: float = 0
    """Pictures per second; 0 is the usual rate."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return (self.size,) if self.size else COMMON_SIZES

    @property
    def requested_rate(self) -> float:
        return self.rate or DEFAULT_RATE


class OpenCvReader:
    """Pictures of an opened ``cv2.VideoCapture``; see ``steady.Reader``. Raises SourceError when it gives none."""

    rate = Fraction(0)
    color = ColorTags()
    pixel_aspect = Fraction(1)
    damaged = 0

    def __init__(self, name: str, device: Any, stop: threading.Event) -> None:
        self._name, self._device, self._stop = name, device, stop

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        good, image = self._device.read()
        for _ in range(FIRST_READ_ATTEMPTS):
            if good or self._stop.wait(0.02):
                break
            good, image = self._device.read()
        if not good:
            raise SourceError(f"{self._name} gives no picture: is another program using it?")
        while good:
            yield cv2().cvtColor(image, cv2().COLOR_BGR2RGB)
            good, image = self._device.read()
        raise SourceError(f"{self._name} gives no more pictures: was it unplugged?")

    def close(self) -> None:
        self._device.release()


def open_webcam(name: str, request: CaptureRequest) -> Callable[[threading.Event], OpenCvReader]:
    """``webcam:0`` or ``webcam:Logitech``: it is looked for anew each time, since a number changes with the plug."""
    which = name.partition(":")[2] or "0"

    def open(stop: threading.Event) -> OpenCvReader:
        camera = find_camera(which)
        return OpenCvReader(name, _open_device(name, camera, request), stop)

    return open


def _open_device(name: str, camera: Camera, request: CaptureRequest) -> Any:
    """MJPG is asked for before size and rate: raw pictures of 720p do not fit through USB 2 at 30 a second.

    On DirectShow all of it must be known when the camera is opened.
    """
    cv = cv2()
    cv.utils.logging.setLogLevel(cv.utils.logging.LOG_LEVEL_SILENT)  # it would print what we raise
    if sys.platform.startswith("linux") and not Path(f"/dev/video{camera.index}").exists():
        raise SourceError(f"there is no camera {camera.index} here; {LISTING}")
    mjpg = cv.VideoWriter_fourcc(*"MJPG")
    for width, height in request.sizes:
        wanted = [(cv.CAP_PROP_FOURCC, mjpg), (cv.CAP_PROP_FRAME_WIDTH, width), (cv.CAP_PROP_FRAME_HEIGHT, height),
                  (cv.CAP_PROP_FPS, request.requested_rate)]
        if sys.platform == "win32":
            device = cv.VideoCapture(camera.index, cv.CAP_DSHOW, [int(number) for pair in wanted for number in pair])
        else:
            device = cv.VideoCapture(camera.index, camera.backend)
        if not device.isOpened():
            break
        for key, value in wanted if sys.platform != "win32" else ():
            device.set(key, value)
        device.set(cv.CAP_PROP_BUFFERSIZE, 1)  # V4L2 only; elsewhere the newest wins anyway
        if device.read()[0]:
            return device
        device.release()
    raise SourceError(f"{name} cannot be opened: is another program using it? {LISTING}")


AV_DEVICES = {"v4l2": ("linux", "/dev/video0"), "avfoundation": ("darwin", "0"), "dshow": ("win32", "NAME")}
"""FFmpeg's devices: where they are, and what one is called there."""


def open_av_device(name: str, request: CaptureRequest) -> Callable[[threading.Event], NetworkReader]:
    """``v4l2:/dev/video0``, ``avfoundation:0`` or ``dshow:NAME``. Raises UsageError on another system."""
    kind, _, which = name.partition(":")
    platform, example = AV_DEVICES[kind]
    if not sys.platform.startswith(platform):
        raise UsageError(f"{kind} is not on this system: --source webcam:0 works on all")
    if not which:
        raise UsageError(f"--source is {name!r}, but a camera is named: {kind}:{example}")
    target = f"video={which}" if kind == "dshow" else which
    address = Address(name, target, kind, _option_sets(kind, request))
    return lambda stop: NetworkReader(address, stop)


def _option_sets(kind: str, request: CaptureRequest) -> tuple[dict[str, str], ...]:
    """Compressed pictures first, for the same reason as above; at last whatever the camera likes."""
    compressed = {"v4l2": {"input_format": "mjpeg"}, "dshow": {"vcodec": "mjpeg"}}.get(kind, {})
    rate = {"framerate": f"{request.requested_rate:g}"}
    sized = [{"video_size": f"{width}x{height}"} for width, height in request.sizes]
    ladder = [size | rate | compressed for size in sized] + [size | rate for size in sized] + [rate, {}]
    return tuple({"fflags": "nobuffer", **options} for options in ladder)
