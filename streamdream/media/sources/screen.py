"""The screen, or a part of it, as a live source."""
from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage, SourceError, UsageError
from streamdream.media.input_container import ColorTags
from streamdream.media.sources.cameras import CaptureRequest
from streamdream.media.sources.transform import Region

EXAMPLE = "screen:, or screen:1280x720+100+50"


class ScreenReader:
    """See ``reconnecting.Reader``. ``region`` None is the first screen.

    Raises MissingPackage without mss, SourceError where there is no display, UsageError when the region is not on it.
    """

    color = ColorTags()
    pixel_aspect = Fraction(1)
    damaged = 0

    def __init__(self, name: str, region: Region | None, request: CaptureRequest, stop: threading.Event) -> None:
        self._name, self._stop = name, stop
        self.rate = Fraction(request.requested_rate).limit_denominator(1001)
        try:
            import mss
        except ImportError:
            raise MissingPackage("the screen is read through mss: pip install 'streamdream[screen]'") from None
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise SourceError("there is no display here whose screen could be taken")
        self._failure = mss.ScreenShotError
        try:
            self._screen: Any = mss.MSS()
            monitors = self._screen.monitors
        except self._failure as error:
            raise SourceError(f"the screen cannot be taken: {error}") from None
        self._area = monitors[1] if region is None else self._inside(region, monitors[0])

    def _inside(self, region: Region, whole: dict[str, Any]) -> dict[str, Any]:
        if region.left + region.width > whole["width"] or region.top + region.height > whole["height"]:
            self.close()
            raise UsageError(f"{self._name} is not on the screen, which is {whole['width']}x{whole['height']}")
        return {"left": whole["left"] + region.left, "top": whole["top"] + region.top, "width": region.width,
                "height": region.height}

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        due = time.perf_counter()
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            due = max(due + float(1 / self.rate), time.perf_counter() - 1)
            try:
                shot = self._screen.grab(self._area)
            except self._failure as error:
                raise SourceError(f"the screen cannot be taken any more: {error}") from None
            pixels = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
            yield np.ascontiguousarray(pixels[..., 2::-1])

    def close(self) -> None:
        self._screen.close()
