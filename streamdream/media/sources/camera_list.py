"""List cameras with their names and, where the system reports them, their modes."""
from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamdream.errors import SourceError

NO_CAMERA_HINTS = {
    "linux": "no camera is here: is it plugged in (lsusb), allowed (groups shows video), passed into the container "
             "(--device /dev/video0)?",
    "darwin": "no camera is here: is it plugged in, and allowed for this terminal in System Settings, Privacy?",
    "win32": "no camera is here: is it plugged in, and allowed for desktop apps in Settings, Privacy, Camera?",
}


@dataclass(frozen=True)
class Camera:
    """``index`` and ``backend`` are OpenCV's; ``modes`` is empty where the system does not report them."""

    index: int
    name: str
    backend: int = 0
    path: str = ""
    allowed: bool = True
    modes: list[Mode] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"source": f"webcam:{self.index}", "name": self.name, "path": self.path, "allowed": self.allowed,
                "modes": [vars(mode) for mode in self.modes]}


@dataclass(frozen=True)
class Mode:
    """``format`` is a FOURCC such as MJPG; ``rates`` are pictures per second, largest first."""

    format: str
    width: int
    height: int
    rates: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.format} {self.width}x{self.height}" + (
            f" at {', '.join(f'{rate:g}' for rate in self.rates)}" if self.rates else "")


def no_camera_hint() -> str:
    """What to check when no camera is found."""
    return NO_CAMERA_HINTS.get(sys.platform, NO_CAMERA_HINTS["linux"])


def list_cameras() -> list[Camera]:
    """All cameras, sorted by number. Raises MissingPackage where OpenCV cannot be loaded."""
    from cv2_enumerate_cameras import enumerate_cameras, supported_backends

    from streamdream.media.opencv import cv2

    native = {"linux": cv2().CAP_V4L2, "win32": cv2().CAP_DSHOW, "darwin": cv2().CAP_AVFOUNDATION}.get(sys.platform, 0)
    backend = native if native in supported_backends else 0
    cameras = [Camera(info.index, str(info.name), backend, str(info.path or ""), _is_allowed(info.path),
                      _modes(info.path)) for info in enumerate_cameras(backend)]
    return sorted(cameras, key=lambda camera: camera.index)


def find_camera(which: str) -> Camera:
    """Find a camera by its number or a part of its name. Raises SourceError, which names the cameras that exist.

    A number need not be listed: OpenCV may open cameras that the list does not have.
    """
    if re.fullmatch("[0-9]{1,9}", which):
        listed = [camera for camera in list_cameras() if camera.index == int(which)]
        return listed[0] if listed else Camera(int(which), f"camera {which}")
    cameras = list_cameras()
    matches = [camera for camera in cameras if which.lower() in camera.name.lower()]
    if matches:
        return matches[0]
    known = ", ".join(f"{camera.index} ({camera.name})" for camera in cameras)
    raise SourceError(f"no camera is called {which!r}; " + (f"here are {known}" if known else no_camera_hint()))


def _is_allowed(path: str | None) -> bool:
    return not path or not path.startswith("/dev/") or os.access(path, os.R_OK | os.W_OK)


def _modes(path: str | None) -> list[Mode]:
    if not sys.platform.startswith("linux") or not path:
        return []
    from streamdream.media.sources import v4l2

    try:
        with Path(path).open("rb", buffering=0) as device:
            return [Mode(*mode) for mode in v4l2.modes(v4l2.ioctl_query(device.fileno()))]
    except OSError:
        return []


