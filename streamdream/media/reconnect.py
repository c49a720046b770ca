"""Count how often a connection was lost and for how long, and say when to try again."""
from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)


class Reconnect:
    """The losses of the connection ``name``: each is logged, all of them are ``summary``.

    The wait between two attempts starts at ``first_wait_seconds`` and doubles up to ``max_wait_seconds``. It starts
    again after a connection that held for ``stable_seconds``.
    """

    def __init__(self, name: str, first_wait_seconds: float, max_wait_seconds: float, stable_seconds: float) -> None:
        self._name, self._stable_seconds = name, stable_seconds
        self._first_wait_seconds, self._max_wait_seconds = first_wait_seconds, max_wait_seconds
        self._wait_seconds = first_wait_seconds
        self._connected_at = time.perf_counter()
        self._lost_at: float | None = None
        self._losses, self._lost_seconds = 0, 0.0

    @property
    def is_lost(self) -> bool:
        return self._lost_at is not None

    @property
    def lost_seconds(self) -> float:
        """How long it has been lost now, 0 while it is connected."""
        return 0.0 if self._lost_at is None else time.perf_counter() - self._lost_at

    @property
    def summary(self) -> str:
        """As in ``NAME was lost twice, for 3.4 s in all``; "" when it never was."""
        if not self._losses:
            return ""
        count = "once" if self._losses == 1 else f"{self._losses} times"
        return f"{self._name} was lost {count}, for {self._lost_seconds + self.lost_seconds:.1f} s in all"

    def on_disconnect(self, error: Exception, last_seen: float | None = None) -> float:
        """Note that it is lost, or that an attempt has failed; return the seconds to wait before the next attempt.

        ``last_seen`` (``time.perf_counter``) is when it last worked, if that was before now.
        """
        now = time.perf_counter() if last_seen is None else last_seen
        was_stable = self._lost_at is None and now - self._connected_at > self._stable_seconds
        if was_stable or not self._losses:
            self._wait_seconds = self._first_wait_seconds
        else:
            self._wait_seconds = min(2 * self._wait_seconds, self._max_wait_seconds)
        if self._lost_at is None:
            self._lost_at = now
            self._losses += 1
        log.warning("%s; trying again in %.2g s", error, self._wait_seconds)
        return self._wait_seconds

    def on_reconnect(self, connected_at: float | None = None) -> None:
        """Note that it is back, since ``connected_at`` (``time.perf_counter``, None is now)."""
        if self._lost_at is None:
            return
        self._connected_at = time.perf_counter() if connected_at is None else connected_at
        seconds = self._connected_at - self._lost_at
        self._lost_at = None
        self._lost_seconds += seconds
        log.info("%s is back after %.1f s", self._name, seconds)
