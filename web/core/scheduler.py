"""Fair sharing of one device: the waiting client that has used it least gets it next."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

YIELD_FACTOR = 12.0
"""A dream that waited for the CPU then sleeps this many times as long."""
MAX_CREDIT_SECONDS = 0.5
"""A client that returns is at most this far below the others: idle time gives no unlimited credit."""


class FairScheduler:
    """Gives the device slot to the waiting client that has held it for the shortest time so far.

    A new client starts at the level of the client that held it last, which had the least of all that waited; one that
    returns starts not much below. So a client that asks rarely, such as the thumbnails, does not set the level.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._free = threading.Condition()
        self._busy = False
        self._waiting: list[tuple[str, object]] = []
        self._held_seconds: dict[str, float] = {}
        self._level_seconds = 0.0
        """Seconds for which the client that held the device slot last had held it before; never decreases."""

    @contextmanager
    def device_slot(self, client_id: str) -> Iterator[None]:
        """Hold the device."""
        self._acquire(client_id)
        start = self._clock()
        try:
            yield
        finally:
            with self._free:
                if client_id in self._held_seconds:  # else ``forget`` was called meanwhile
                    self._held_seconds[client_id] += self._clock() - start
                self._busy = False
                self._free.notify_all()

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
            held = self._held_seconds.get(client_id, self._level_seconds)
            self._held_seconds[client_id] = max(held, self._level_seconds - MAX_CREDIT_SECONDS)
            self._waiting.append(ticket)
            self._free.wait_for(lambda: not self._busy and self._next() is ticket)
            self._waiting.remove(ticket)
            self._busy = True
            self._level_seconds = max(self._level_seconds, self._held_seconds.get(client_id, 0.0))

    def _next(self) -> tuple[str, object]:
        return min(self._waiting, key=lambda ticket: self._held_seconds.get(ticket[0], 0.0))


class CpuYield:
    """The device slot of one visitor, which leaves CPU time to other processes, such as the browser that shows this
    dream. The browser runs in another session, to which the operating system gives no more than half.

    A dream that waited for the CPU made others wait as well, so it sleeps afterwards by ``rest(seconds)``; but the rate
    does not fall below ``min_dream_rate`` dreams per second.
    """

    def __init__(self, device_slot: Callable[[], AbstractContextManager[None]], min_dream_rate: float,
                 rest: Callable[[float], object]) -> None:
        self._device_slot, self._period_seconds, self._rest = device_slot, 1 / min_dream_rate, rest

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._device_slot():
            began, cpu_began = time.perf_counter(), time.thread_time()
            yield
            took_seconds = time.perf_counter() - began
            waited_seconds = took_seconds - (time.thread_time() - cpu_began)
        self._rest(max(0.0, min(YIELD_FACTOR * waited_seconds, self._period_seconds - took_seconds)))
