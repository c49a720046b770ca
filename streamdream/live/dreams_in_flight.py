"""Dreams that a device computes while the next frame is captured: each frame is shown with its own dream.

    capture ──newest frame──▶ dream ──at most two──▶ finish ──newest dream──▶ display ──▶ sink

*dream* submits frames; *finish* waits for them, in order, in a thread of its own. That thread waits in the driver,
which needs neither the processor nor Python's lock.
"""
from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from streamdream.live import compositor
from streamdream.live.captured import Captured

if TYPE_CHECKING:
    from streamdream.dream.device_dreamer import PendingDream
    from streamdream.dream.reference_images import References

MAX_IN_FLIGHT = 2
"""One is computed while the next is submitted: the device never waits for the processor, and nothing queues."""
STALL_SECONDS = 0.1
"""A dream that is awaited for longer is not waited for: what is captured meanwhile gets the last residual, warped."""


class DeviceUse(Protocol):
    """The device slot, within its block."""

    def extend(self) -> Callable[[], float]:
        """Use the device beyond the block, until the returned function is called. It returns the seconds for which this
        use had the device to itself.
        """


class SoleUse:
    """The use of a device that no other run shares."""

    def __init__(self) -> None:
        self._free_since = 0.0

    def extend(self) -> Callable[[], float]:
        began = time.perf_counter()

        def end() -> float:
            now = time.perf_counter()
            seconds, self._free_since = now - max(began, self._free_since), now
            return seconds

        return end


@dataclass(frozen=True)
class Submitted:
    """A dream in flight. ``level``, ``height`` and ``octaves`` say how it is dreamed, for whoever measures it."""

    captured: Captured
    pending: PendingDream
    references: References
    end_use: Callable[[], float]
    level: str
    height: int
    octaves: int


@dataclass(frozen=True)
class Finished:
    """How long the device took for a dream."""

    seconds: float
    level: str
    height: int
    octaves: int


class DreamsInFlight:
    """At most ``MAX_IN_FLIGHT`` dreams. *dream* calls ``wait_for_room``, then ``begin``, then ``put`` or ``abandon``.

    ``publish`` gets each frame with its dream, in order, in the thread of ``run``.
    """

    def __init__(self, publish: Callable[[Captured], None]) -> None:
        self._publish = publish
        self._changed = threading.Condition()
        self._queue: deque[Submitted] = deque()
        self._began: deque[float] = deque()  # of the frames that are submitted or about to be; oldest first
        self._closed = self.cancelled = self._ended = False
        self._awaits_first, self._finished_at = True, 0.0
        self._last: Submitted | None = None
        self.finished: deque[Finished] = deque()
        """Since they were last taken, by *dream*."""
        self.count = 0
        """Dreams that have finished."""

    def wait_for_room(self) -> None:
        """Wait until fewer than ``MAX_IN_FLIGHT`` are in flight, or for the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._began) < MAX_IN_FLIGHT or self.cancelled)

    def begin(self, first: bool = False) -> None:
        """Note that a frame is about to be submitted. ``first``: it is the first of its kind, which may take long."""
        with self._changed:
            self._awaits_first |= first
            self._began.append(time.perf_counter())

    def put(self, submitted: Submitted) -> None:
        """Hand over the dream that was begun last."""
        with self._changed:
            if not self._ended:
                self._queue.append(submitted)
                self._changed.notify_all()
                return
        _discard(submitted)

    def abandon(self) -> None:
        """Forget the frame that was begun last, as it cannot be dreamed."""
        with self._changed:
            self._began.pop()
            self._changed.notify_all()

    @property
    def stalled(self) -> bool:
        """Whether a dream takes too long to wait for: the first of its kind, or longer than ``STALL_SECONDS``."""
        with self._changed:
            age = time.perf_counter() - max(self._began[0], self._finished_at) if self._began else 0.0
            return self._awaits_first or age > STALL_SECONDS

    def take_residual(self) -> compositor.PublishedResidual | None:
        """Return the residual of the newest finished dream; None where it was taken already, or there is none."""
        last, self._last = self._last, None
        if last is None:
            return None
        return compositor.prepare_residual(last.pending.residual(), last.captured.frame.image, last.references)

    def forget_residual(self) -> None:
        """There is a newer residual, of a dream that was not in flight."""
        self._last = None

    def run(self) -> None:
        """Finish dreams until ``close`` and the last of them, or until ``cancel``."""
        try:
            while (submitted := self._next()) is not None:
                self._finish(submitted)
        finally:
            self.cancel()
            with self._changed:
                self._ended = True
            while self._queue:
                _discard(self._queue.popleft())

    def close(self) -> None:
        """Nothing more will be submitted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """End soon; what is in flight is not published."""
        with self._changed:
            self._closed = self.cancelled = True
            self._changed.notify_all()

    def _next(self) -> Submitted | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closed)
            return self._queue.popleft() if self._queue and not self.cancelled else None

    def _finish(self, submitted: Submitted) -> None:
        try:
            dream = cast(NDArray[np.uint8], submitted.pending.result())
        finally:
            seconds = submitted.end_use()
        with self._changed:
            self._began.popleft()
            self._awaits_first, self._finished_at, self._last = False, time.perf_counter(), submitted
            self.count += 1
            self.finished.append(Finished(seconds, submitted.level, submitted.height, submitted.octaves))
            self._changed.notify_all()
        if not self.cancelled:
            self._publish(replace(submitted.captured, shown=dream))


def _discard(submitted: Submitted) -> None:
    """Wait for a dream that nobody will see: until then the device reads what it holds."""
    try:
        with suppress(Exception):
            submitted.pending.result()
    finally:
        submitted.end_use()
