"""Dreamers whose whole frame is dreamed on a device: on the processor as the device, or one that takes its time."""
from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.settings import DreamSettings
from support.stepped_live import TIMEOUT_SECONDS
from support.waiting import until

SETTINGS = DreamSettings(layers="conv2d_2", octaves=1, warmup_steps=0, jitter=4, cut=0.0)
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


class Moving(LiveSource):
    """A marker that moves 4 px a frame over a plain picture of 96x64. The next frame comes when ``ready`` says so;
    what ``script`` yields is called first.
    """

    def __init__(self, ready: Callable[[], object], script: Iterator[Callable[[], object]]) -> None:
        super().__init__("moving")
        self.width, self.height, self.rate = 96, 64, Fraction(30)
        self._ready, self._script, self.given = ready, script, 0
        self.picture = marked

    def __iter__(self) -> Iterator[Frame]:
        for event in self._script:
            event()
            yield timestamped_frame(self.picture(self.given), self.given / 30)
            self.given += 1
            self._ready()


def is_longer(items: list[Any], count: int) -> bool:
    return len(items) > count


class Shown(NullSink):
    """Keeps the frames that are shown and what is shown of them."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.images: list[NDArray[np.uint8]] = []

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.frames.append(frame)
        self.images.append(image)

    @property
    def numbers(self) -> list[int]:
        return [round(30 * frame.pts_seconds) for frame in self.frames]


class Run:
    """A live run on a device, whose source waits until each frame is shown."""

    def __init__(self, eager: Backend, script: Iterator[Callable[[], object]], settings: DreamSettings = SETTINGS,
                 resolution: ResolutionController | None = None, waits: bool = True, **more: Any) -> None:
        self.resolution = resolution or ResolutionController(64, 12, fixed=True)
        self.dreamer = device_dreamer(eager, self.resolution.field_height)
        self.device, self.sink, self.controls = RecordedDevice(self.dreamer), Shown(), Controls(settings)
        self.source = Moving(self._shown if waits else lambda: None, script)
        self.live = Live(self.source, self.sink, self.dreamer, self.resolution, self.controls,
                         **{"drop_frames": True, **more})
        self.gate = Gate()
        self.device.before_result = self.gate

    def _shown(self) -> None:
        until(lambda: (self.source.given in (number + 1 for number in self.sink.numbers[-1:])
                       and self.live._worker.in_flight.count == self.source.given) or self.live._stop.is_set())


def frames(count: int) -> Iterator[Callable[[], object]]:
    return itertools.repeat(bool, count)
