"""Whether dreams succeed: what ``/readyz`` answers."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOADING, READY, FAILED, STALLED, DRAINING = "loading", "ready", "failed", "stalled", "draining"
MAX_FAILURES, FAILURE_SECONDS = 3, 60.0
"""Consecutive failures from which on the server is not ready; and for how long, as without new visitors none would
succeed again.
"""
STALL_SECONDS = 120.0
"""How long one use of the device may take. A first compilation takes up to a minute."""


class DreamHealth:
    """Counts dreams that fail for another reason than their settings. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failures, self._failed_seconds = 0, 0.0
        self.is_loaded = False
        """Whether the first dream is done."""
        self.first_error = ""
        """Why the first dream failed, or "" if it did not."""

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        with self._lock:
            self._failures, self._failed_seconds = self._failures + 1, self._clock()

    def status(self, stalled_seconds: float) -> str:
        """Return one of LOADING, READY, FAILED, STALLED. ``stalled_seconds``: see ``FairScheduler``."""
        if self.first_error:
            return FAILED
        if not self.is_loaded:
            return LOADING
        if self._failures >= MAX_FAILURES and self._clock() - self._failed_seconds < FAILURE_SECONDS:
            return FAILED
        return STALLED if stalled_seconds > STALL_SECONDS else READY
