"""Live runs without a clock: the next frame comes when the last one was dreamed and shown."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.dream.dreamer import Dreamer
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from support.live_runs import SIZE

TIMEOUT_SECONDS = 30.0
"""How long a thread may take before the test fails; nothing waits so long in a run that works."""
MAX_FRAMES = 500
"""In how many frames what is waited for must happen."""


class Steps:
    """Count what each frame passes: ``record`` its dream in ``dreams``, its picture in ``shown``."""

    def __init__(self) -> None:
        self.dreams: list[str] = []
        """The name of the dreamer of each dream, also of one that failed."""
        self.began_empty: list[bool] = []
        """Whether each dream began without a residual."""
        self.sink = KeepingSink()
        self._dreamed = threading.Semaphore(0)

    def record(self, dreamer: Dreamer, name: str = "") -> Dreamer:
        """Return the dreamer; from now on its dreams are recorded."""
        advance = dreamer.advance

        def advance_and_record(state: Any, *args: Any, **options: Any) -> Any:
            try:
                return advance(state, *args, **options)
            finally:
                self.dreams.append(name)
                self.began_empty.append(state.residual is None)
                self._dreamed.release()

        dreamer.advance = advance_and_record  # type: ignore[method-assign]
        return dreamer

    def wait(self) -> None:
        """Wait until one more frame was dreamed and shown."""
        for done in (self._dreamed, self.sink.written):
            assert done.acquire(timeout=TIMEOUT_SECONDS), "a frame was not dreamed or not shown"


class KeepingSink(NullSink):
    """Keep each picture that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[NDArray[np.uint8]] = []
        self.written = threading.Semaphore(0)

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.images.append(image)
        self.written.release()


class SteppedSource(LiveSource):
    """Give the pictures of ``script``, 1/30 s apart, each after the last one was dreamed and shown.

    What the script does between two pictures happens between two frames. ``step_seconds`` may be changed meanwhile.
    """

    def __init__(self, steps: Steps, script: Iterator[NDArray[np.uint8]], size: tuple[int, int] = SIZE) -> None:
        super().__init__("stepped")
        self.width, self.height, self.rate = *size, Fraction(30)
        self.step_seconds = 1 / 30
        self._steps, self._script = steps, script

    def __iter__(self) -> Iterator[Frame]:
        pts_seconds = 0.0
        for image in self._script:
            pts_seconds += self.step_seconds
            yield timestamped_frame(image, pts_seconds)
            self._steps.wait()


def until_in_frames(condition: Callable[[], object], images: Iterator[NDArray[np.uint8]]
                    ) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures until the condition holds; fail when it does not within ``MAX_FRAMES``."""
    for _ in range(MAX_FRAMES):
        if condition():
            return
        yield next(images)
    raise AssertionError(f"it did not happen in {MAX_FRAMES} frames")
