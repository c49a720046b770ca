"""Where live frames come from: a webcam by its number, or anything ``sources`` opens, at its own pace.

``open_live`` picks the kind by the name. A live source never waits for whoever takes its frames.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from streamdream.errors import SourceError, UsageError
from streamdream.frame import Frame
from streamdream.opencv import cv2
from streamdream.passthrough import ColorTags
from streamdream.sources import Source, open_source

WEBCAM = "webcam:"
TICK = Fraction(1, 90_000)
"""Unit of time of live frames, in seconds: that of MPEG, fine enough for any rate."""
WISHES = ((1280, 720), (640, 480))
"""Sizes that a camera is asked for, in turn, until one gives pictures."""
WISHED_RATE = 30
FIRST_PICTURE_SECONDS = 5.0


class LiveSource:
    """What all live sources have in common; see ``sources.Source``."""

    width: int
    height: int
    rate: Fraction
    frame_count = 0
    time_base = TICK
    pixel_aspect = Fraction(1)
    last_duration = Fraction(0)
    color = ColorTags()

    def __init__(self, name: str) -> None:
        self.name = name
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def stamped(image: Any, seconds: float) -> Frame:
    ticks = round(seconds / TICK)
    return Frame(image, float(ticks * TICK), ticks, (TICK.numerator, TICK.denominator))


class Webcam(LiveSource):
    """A camera through OpenCV. Raises SourceError when there is none of that number or it gives no picture."""

    def __init__(self, name: str, index: int) -> None:
        super().__init__(name)
        self._device = self._open(index)
        image = self._first()
        self.height, self.width = image.shape[:2]
        stated = self._device.get(cv2().CAP_PROP_FPS)
        self.rate = Fraction(stated if 1 <= stated <= 240 else WISHED_RATE).limit_denominator(1001)

    def _open(self, index: int) -> Any:
        """MJPG is asked for before size and rate: raw pictures of 720p do not fit through USB 2 at 30 a second.

        On DirectShow all of it must be known when the camera is opened.
        """
        if sys.platform.startswith("linux") and not Path(f"/dev/video{index}").exists():  # OpenCV would print a page
            raise SourceError(f"there is no camera {index} here; streamdream doctor lists what there is")
        cv = cv2()
        mjpg = cv.VideoWriter_fourcc(*"MJPG")
        for width, height in WISHES:
            wanted = [(cv.CAP_PROP_FOURCC, mjpg), (cv.CAP_PROP_FRAME_WIDTH, width),
                      (cv.CAP_PROP_FRAME_HEIGHT, height), (cv.CAP_PROP_FPS, WISHED_RATE)]
            if sys.platform == "win32":
                device = cv.VideoCapture(index, cv.CAP_DSHOW, [int(number) for pair in wanted for number in pair])
            else:
                device = cv.VideoCapture(index)
            if not device.isOpened():
                break
            for key, value in wanted if sys.platform != "win32" else ():
                device.set(key, value)
            device.set(cv.CAP_PROP_BUFFERSIZE, 1)  # V4L2 only; elsewhere the newest wins anyway
            if device.read()[0]:
                return device
            device.release()
        raise SourceError(f"no camera {index} gives pictures; streamdream doctor lists what is here")

    def _first(self) -> Any:
        deadline = time.perf_counter() + FIRST_PICTURE_SECONDS
        while time.perf_counter() < deadline:
            good, image = self._device.read()
            if good:
                return image
        raise SourceError(f"{self.name} gives no picture")

    def __iter__(self) -> Iterator[Frame]:
        began = time.perf_counter()
        while True:
            good, image = self._device.read()
            if not good:
                raise SourceError(f"{self.name} gives no more pictures: was it unplugged?")
            if image.shape[:2] != (self.height, self.width):
                image = cv2().resize(image, (self.width, self.height))
            yield stamped(cv2().cvtColor(image, cv2().COLOR_BGR2RGB), time.perf_counter() - began)

    def close(self) -> None:
        self._device.release()


class Paced(LiveSource):
    """What ``open`` gives, each frame when it is due; at its end once more, with ``loop``."""

    def __init__(self, name: str, open: Callable[[], Source], loop: bool) -> None:
        super().__init__(name)
        self._open, self._loop = open, loop
        self._source = open()
        self.width, self.height, self.rate = self._source.width, self._source.height, self._source.rate
        self.warnings = self._source.warnings
        self.color, self.pixel_aspect = self._source.color, self._source.pixel_aspect

    def __iter__(self) -> Iterator[Frame]:
        began = time.perf_counter()
        shift = 0.0  # what was shown before, in seconds
        while True:
            end, first = shift, None
            for frame in self._source:
                first = frame.pts_seconds if first is None else first
                due = shift + frame.pts_seconds - first
                if (wait := began + due - time.perf_counter()) > 0:
                    time.sleep(wait)
                yield stamped(frame.image, due)
                end = due + float(1 / self.rate)
            if not self._loop or end == shift:
                return
            shift = end
            self._source.close()
            self._source = self._open()
            if (self._source.width, self._source.height) != (self.width, self.height):
                raise SourceError(f"{self.name} has another size now")

    def close(self) -> None:
        self._source.close()


class Mirrored:
    """Another source with left and right exchanged."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            yield replace(frame, image=np.ascontiguousarray(frame.image[:, ::-1]))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()


def open_live(name: str, loop: bool = True, mirror: bool = False) -> Source:
    """``webcam:0``, or what ``open_source`` takes: files and patterns are looped, streams and graphs are not.

    Raises SourceError or UsageError.
    """
    source: Any
    if name.startswith(WEBCAM):
        if not name[len(WEBCAM):].isdigit():
            raise UsageError(f"--source is {name!r}, but a webcam is named by its number, as in webcam:0")
        source = Webcam(name, int(name[len(WEBCAM):]))
    else:
        endless = "://" in name or name.startswith("lavfi:")
        source = Paced(name, lambda: open_source(name), loop and not endless)
    result: Source = Mirrored(source) if mirror else source
    return result
