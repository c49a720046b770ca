"""Live runs on a small field: sources that end, sinks that are slow."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
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
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.settings import DreamSettings

SIZE = 160, 96
SETTINGS = DreamSettings(warmup_steps=0)


def images(count: int = 8) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (count, 12, 20, 3), np.uint8)
    return [np.kron(image, np.ones((8, 8, 1), np.uint8)) for image in coarse]


def live(source: Any, sink: Any, eager: Backend, settings: DreamSettings = SETTINGS) -> Live:
    dreamer = Dreamer(get("inception_v3"), eager, 96)
    return Live(source, sink, dreamer, ResolutionController(96, 12, fixed=True), Controls(settings))


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("streamdream-capture", "streamdream-dream")]


class Ends(LiveSource):
    """Gives frames as fast as they are taken, then does what it is told to."""

    def __init__(self, after: int, last: Any = None) -> None:
        super().__init__("ends")
        self.width, self.height, self.rate = *SIZE, Fraction(30)
        self._after, self._last = after, last

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self._after):
            time.sleep(0.005)
            yield timestamped_frame(images(1)[0], number / 30)
        if self._last is not None:
            raise self._last


def broken() -> DreamSettings:
    settings = replace(SETTINGS)
    object.__setattr__(settings, "flow", "nonsense")
    return settings
