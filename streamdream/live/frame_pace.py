"""Whether a device keeps up with the source, so that each frame can be shown with its own dream."""
from __future__ import annotations

import time
from collections.abc import Callable

RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 640.0
"""Time until a device that was too slow is tried again, doubled each time: something else may have kept it busy."""
PATIENCE_SECONDS = 3.0
"""How long it must be too slow before it is given up: something is prepared, or another run begins."""
SMOOTHING = 0.05
"""Weight of the newest interval in the mean."""


class FramePace:
    """Measures the interval of the frames; remembers that the device was too slow for it.

    ``rate`` is what the source claims, in Hz. With ``must_keep_up`` frames are left out where the device is too slow.
    """

    def __init__(self, rate: float, must_keep_up: bool = False, clock: Callable[[], float] = time.perf_counter) -> None:
        self._claimed = self._mean = 1 / max(rate, 1e-3)
        self._must_keep_up, self._clock = must_keep_up, clock
        self._last_at: float | None = None
        self._slow_at: float | None = None
        self._retry_at, self._retry_seconds = 0.0, RETRY_SECONDS

    def on_frame(self, at_seconds: float) -> None:
        """Count a frame that was captured at that time."""
        if self._last_at is not None:
            self._mean += SMOOTHING * (min(at_seconds - self._last_at, 2 * self._claimed) - self._mean)
        self._last_at = at_seconds

    @property
    def rate(self) -> float:
        """Frames per second: what the source claims, or what it is measured to give, if that is more. A browser sends
        fewer where its dreams come late, so fewer say nothing.
        """
        return 1 / max(1e-3, min(self._claimed, self._mean))

    @property
    def keeps_up(self) -> bool:
        """Whether each frame is to be shown with its own dream."""
        return self._clock() >= self._retry_at

    def give_up(self) -> bool:
        """The device was too slow: let frames share dreams for a while. Return False if it must keep up, or has not
        been too slow for long.
        """
        now = self._clock()
        if self._slow_at is None or now > self._slow_at + 2 * PATIENCE_SECONDS:
            self._slow_at = now
        if self._must_keep_up or now < self._slow_at + PATIENCE_SECONDS:
            return False
        self._slow_at = None
        self._retry_at = self._clock() + self._retry_seconds
        self._retry_seconds = min(MAX_RETRY_SECONDS, 2 * self._retry_seconds)
        return True
