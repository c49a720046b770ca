"""Fair sharing of one device: the waiting client that has used it least gets it next."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

YIELD_FACTOR = 12.0
"""A dream that waited for the CPU then sleeps this many times as long."""
MAX_CREDIT_SECONDS = 0.5
"""A client that returns is at most this far below the others: idle time gives no unlimited credit."""


MAX_EXTENDED = 2
"""Uses of the device that go on after their slot: one is computed while the next is submitted, so the device never
waits for the processor. More would only wait in the device, where their order cannot be changed any more.
"""


class Use:
    """A use of the device, within its slot."""

    def __init__(self, began: float, extend: Callable[[Use], Callable[[], float]]) -> None:
        self.began, self.is_extended, self._extend = began, False, extend

    def extend(self) -> Callable[[], float]:
        """Use the device beyond the slot, until the returned function is called, once, by any thread. It returns the
        seconds for which this use had the device to itself.
        """
        self.is_extended = True
        return self._extend(self)


class FairScheduler:
    """Gives the device slot to the waiting client that has held it for the shortest time so far.

    One client at a time is in its slot. What it has submitted to a device that computes by itself may go on after that
    (``Use.extend``), while the next client submits; a device computes in the order of submission.

    A new client starts at the level of the client that held it last, which had the least of all that waited; one that
    returns starts not much below. So a client that asks rarely, such as the thumbnails, does not set the level.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._free = threading.Condition()
        self._busy = False
        self._extended = 0
        self._used_seconds = 0.0
        self._in_use_since: float | None = None
        """Both as of the last time at which the device came into use, or was free again."""
        self._last_ended = 0.0
        """When the last use ended."""
        self._first_asked = 0.0
        """When the device was last asked for while nobody used it."""
        self._waiting: list[tuple[str, object]] = []
        self._held_seconds: dict[str, float] = {}
        self._level_seconds = 0.0
        """Seconds for which the client that held the device slot last had held it before; never decreases."""

    @contextmanager
    def device_slot(self, client_id: str) -> Iterator[Use]:
        """Hold the device."""
        self._acquire(client_id)
        use = Use(self._clock(), partial(self._extend, client_id))
        try:
            yield use
        finally:
            with self._free:
                if not use.is_extended:
                    self._end(client_id, use)
                self._busy = False
                self._count_use()
                self._free.notify_all()

    def _extend(self, client_id: str, use: Use) -> Callable[[], float]:
        def end() -> float:
            with self._free:
                self._extended -= 1
                self._count_use()
                self._free.notify_all()
                return self._end(client_id, use)

        with self._free:
            self._extended += 1
        return end

    def _end(self, client_id: str, use: Use) -> float:
        """Count the seconds since the use began, or since the one before it ended, if that was later."""
        now = self._clock()
        seconds = max(0.0, now - max(use.began, self._last_ended))
        self._last_ended = max(self._last_ended, now)
        if client_id in self._held_seconds:  # else ``forget`` was called meanwhile
            self._held_seconds[client_id] += seconds
        return seconds

    def _count_use(self) -> None:
        """Note when the device comes into use, and add up the time when it is free again."""
        is_in_use = self._busy or self._extended > 0
        if is_in_use == (self._in_use_since is not None):
            return
        now = self._clock()
        if self._in_use_since is not None:
            self._used_seconds += now - self._in_use_since
        self._in_use_since = now if is_in_use else None

    @property
    def used_seconds(self) -> float:
        """Seconds for which the device was in use, by whoever, up to now. A time of two uses at once counts once."""
        with self._free:
            now_seconds = 0.0 if self._in_use_since is None else self._clock() - self._in_use_since
            return self._used_seconds + now_seconds

    @property
    def stalled_seconds(self) -> float:
        """Seconds since a use ended, or the first one began after a pause; 0 while nobody uses or waits for the device.
        """
        with self._free:
            if not (self._busy or self._extended or self._waiting):
                return 0.0
            return self._clock() - max(self._last_ended, self._first_asked)

    def forget(self, client_id: str) -> None:
        """Remove a client that will not return."""
        with self._free:
            self._held_seconds.pop(client_id, None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _acquire(self, client_id: str) -> None:
        with self._free:
            ticket = client_id, object()
            if not (self._busy or self._extended or self._waiting):
                self._first_asked = self._clock()
            held = self._held_seconds.get(client_id, self._level_seconds)
            self._held_seconds[client_id] = max(held, self._level_seconds - MAX_CREDIT_SECONDS)
            self._waiting.append(ticket)
            self._free.wait_for(lambda: not self._busy and self._extended < MAX_EXTENDED and self._next() is ticket)
            self._waiting.remove(ticket)
            self._busy = True
            self._count_use()
            self._level_seconds = max(self._level_seconds, self._held_seconds.get(client_id, 0.0))

    def _next(self) -> tuple[str, object]:
        return min(self._waiting, key=lambda ticket: self._held_seconds.get(ticket[0], 0.0))


class CpuYield:
    """The device slot of one visitor, which leaves CPU time to other processes, such as the browser that shows this
    dream. The browser runs in another session, to which the operating system gives no more than half.

    A dream that waited for the CPU made others wait as well, so it sleeps afterwards by ``rest(seconds)``; but the rate
    does not fall below ``min_dream_rate`` dreams per second.
    """

    def __init__(self, device_slot: Callable[[], AbstractContextManager[Use]], min_dream_rate: float,
                 rest: Callable[[float], object]) -> None:
        self._device_slot, self._period_seconds, self._rest = device_slot, 1 / min_dream_rate, rest

    @contextmanager
    def __call__(self) -> Iterator[Use]:
        with self._device_slot() as use:
            began, cpu_began = time.perf_counter(), time.thread_time()
            yield use
            took_seconds = time.perf_counter() - began
            waited_seconds = took_seconds - (time.thread_time() - cpu_began)
        self._rest(max(0.0, min(YIELD_FACTOR * waited_seconds, self._period_seconds - took_seconds)))
