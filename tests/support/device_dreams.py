"""Dreamers whose whole frame is dreamed on a device: on the processor as the device, or one that takes its time."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.media.frame import Frame
from streamdream.models import get
from support.stepped_live import TIMEOUT_SECONDS

MARK = 24
"""Side of the marker, px."""


def left_of(number: int) -> int:
    return 4 * (number % 18)


def marked(number: int) -> NDArray[np.uint8]:
    image = np.full((64, 96, 3), 128, np.uint8)
    texture = np.random.default_rng(0).integers(0, 255, (MARK, MARK, 3), np.uint8)
    image[20:20 + MARK, left_of(number):left_of(number) + MARK] = texture
    return image


def device_dreamer(eager: Backend, field_height: int = 64) -> Dreamer:
    return Dreamer(get("inception_v3"), eager, field_height, frame_path="device")


class RecordedDevice:
    """Records what a dreamer submits and what becomes of it; ``before_submit`` and ``before_result`` may block or fail.
    """

    def __init__(self, dreamer: Dreamer, before_submit: Callable[[], object] = lambda: None,
                 before_result: Callable[[], object] = lambda: None) -> None:
        self.dreamer, self.before_submit, self.before_result = dreamer, before_submit, before_result
        self.began_empty: list[bool] = []
        self.images: list[NDArray[np.uint8]] = []
        """Of the frames that were submitted, in order; ``dreams`` are what they became."""
        self.dreams: list[NDArray[np.uint8]] = []
        self.in_flight = self.most_in_flight = self.residuals = 0
        self._submit = dreamer.submit
        dreamer.submit = self.submit  # type: ignore[method-assign]

    def submit(self, state: Any, frame: Frame, *args: Any, **options: Any) -> Any:
        self.before_submit()
        self.began_empty.append(state.is_empty)
        self.images.append(frame.image)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            state, pending = self._submit(state, frame, *args, **options)
        except BaseException:
            self.in_flight -= 1
            raise
        return state, Recorded(self, pending)

    def dream_of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the frame of that picture became."""
        return self.dreams[next(number for number, other in enumerate(self.images) if other is image)]


class Recorded:
    def __init__(self, device: RecordedDevice, pending: Any) -> None:
        self._device, self._pending = device, pending

    def result(self) -> Any:
        try:
            self._device.before_result()
            dream = self._pending.result()
        finally:
            self._device.in_flight -= 1
        self._device.dreams.append(dream)
        return dream

    def residual(self) -> Any:
        self._device.residuals += 1
        return self._pending.residual()


class Gate:
    """Blocks whoever comes while it is shut."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def __call__(self) -> None:
        self.waiting += 1
        assert self._open.wait(TIMEOUT_SECONDS)
        self.waiting -= 1


def slow(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)
