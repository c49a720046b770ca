"""Who uses the tabs beside the live one: each visitor's address, and when they last did anything."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

EXPIRE_SECONDS = 1800.0
"""A visitor who has done nothing for so long is gone."""
MAX_VISITORS = 10_000
"""Remembered; a visitor costs nothing but a name, so names may be invented. Beyond it those seen longest ago go."""


class Visitors:
    """By name: a Gradio session. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, str]] = {}
        """Seconds and address, seen longest ago first."""
        self._lock = threading.Lock()

    def seen(self, visitor: str, address: str = "") -> None:
        """They did something just now; ``address`` stays what it was when it is not known."""
        with self._lock:
            _, before = self._seen.pop(visitor, (0.0, ""))
            self._seen[visitor] = self._clock(), address or before

    def address(self, visitor: str) -> str:
        """"" when it is not known."""
        with self._lock:
            return self._seen.get(visitor, (0.0, ""))[1]

    def seen_seconds(self, visitor: str) -> float:
        """When that was; 0 for one who is not known."""
        with self._lock:
            return self._seen.get(visitor, (0.0, ""))[0]

    def forget(self, visitor: str) -> None:
        with self._lock:
            self._seen.pop(visitor, None)

    def expired(self, busy: Collection[str] = ()) -> list[str]:
        """Those who are gone: not seen for ``EXPIRE_SECONDS``, or too many; who is ``busy`` is here."""
        with self._lock:
            now, names = self._clock(), [name for name in self._seen if name not in busy]
            return [name for place, name in enumerate(names)
                    if place < len(names) - MAX_VISITORS or now - self._seen[name][0] > EXPIRE_SECONDS]
