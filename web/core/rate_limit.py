"""A token bucket: so many events a second in the long run, and a burst of so many at once."""
from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """``rate`` tokens are added per second, up to ``burst``. For one thread."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._updated_seconds = burst, clock()

    def take(self) -> bool:
        """Whether there was a token left, which is used up then."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated_seconds) * self._rate)
        self._updated_seconds = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
