"""One device, many dreams: who waits longest for the least gets the next turn."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

YIELD_FACTOR = 12.0
"""Times as long as a dream waited for the processor, it leaves it to others."""
MAX_CREDIT_SECONDS = 0.5
"""So much less than the others, at most, has anyone had who was away: nobody saves up turns."""


class FairScheduler:
    """A lock that goes to whoever has held it for the shortest time so far, among those who wait.

    Who comes new starts level with who had the last turn, and who comes again not much below: of those who are here,
    that one had least. What somebody has had who asks seldom, as the maker of thumbnails does, says nothing of others.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._busy = False
        self._waiting: list[tuple[str, object]] = []
        self._held_seconds: dict[str, float] = {}
        self._level_seconds = 0.0
        """What whoever had the last turn had held before it; never less than it was."""

    @contextmanager
    def slot(self, client_id: str) -> Iterator[None]:
        self._acquire(client_id)
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._free:
                if client_id in self._held_seconds:  # not, when it was forgotten meanwhile
                    self._held_seconds[client_id] += time.perf_counter() - began
                self._busy = False
                self._free.notify_all()

    def forget(self, client_id: str) -> None:
        """It takes no more turns."""
        with self._free:
            self._held_seconds.pop(client_id, None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _acquire(self, client_id: str) -> None:
        with self._free:
            ticket = client_id, object()
            had = self._held_seconds.get(client_id, self._level_seconds)
            self._held_seconds[client_id] = max(had, self._level_seconds - MAX_CREDIT_SECONDS)
            self._waiting.append(ticket)
            self._free.wait_for(lambda: not self._busy and self._next() is ticket)
            self._waiting.remove(ticket)
            self._busy = True
            self._level_seconds = max(self._level_seconds, self._held_seconds.get(client_id, 0.0))

    def _next(self) -> tuple[str, object]:
        return min(self._waiting, key=lambda ticket: self._held_seconds.get(ticket[0], 0.0))


class CpuYield:
    """Turns of one visitor on a processor that others want, too: the browser that shows this very dream, perhaps, which
    the system gives no more than its half, as it is another session. A dream that was held up is one that holds up, so
    ``rest`` seconds of pause come after it. Not below ``min_dream_rate`` dreams a second: only what is above is given
    away.
    """

    def __init__(self, turn: Callable[[], AbstractContextManager[None]], min_dream_rate: float,
                 rest: Callable[[float], object]) -> None:
        self._turn, self._period_seconds, self._rest = turn, 1 / min_dream_rate, rest

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._turn():
            began, computed = time.perf_counter(), time.thread_time()
            yield
            took = time.perf_counter() - began
            waited = took - (time.thread_time() - computed)
        self._rest(max(0.0, min(YIELD_FACTOR * waited, self._period_seconds - took)))
