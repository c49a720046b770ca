"""A token bucket: a limit of events per second, with bursts."""
from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Gets ``rate`` tokens per second, up to ``burst``. Not thread-safe."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._updated_seconds = burst, clock()

    def take(self) -> bool:
        """Use up one token. Return False when there is none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated_seconds) * self._rate)
        self._updated_seconds = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
