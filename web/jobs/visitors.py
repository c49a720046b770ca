"""The visitors of the tabs other than Live: the address of each, and when they were last seen."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from ..core import limits


class Visitors:
    """Visitors by name: a Gradio session. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, str]] = {}
        """Seconds and address, least recently seen first."""
        self._lock = threading.Lock()

    def seen(self, visitor: str, address: str = "") -> None:
        """Record that a visitor is here. An unknown ``address`` ("") does not replace a known one."""
        with self._lock:
            _, known_address = self._seen.pop(visitor, (0.0, ""))
            self._seen[visitor] = self._clock(), address or known_address

    def address(self, visitor: str) -> str:
        """Return "" when it is not known."""
        with self._lock:
            return self._seen.get(visitor, (0.0, ""))[1]

    def seen_seconds(self, visitor: str) -> float:
        """Return when a visitor was last seen; 0 for an unknown one."""
        with self._lock:
            return self._seen.get(visitor, (0.0, ""))[0]

    def forget(self, visitor: str) -> None:
        with self._lock:
            self._seen.pop(visitor, None)

    def expired(self, busy: Collection[str] = ()) -> list[str]:
        """Return those not seen for ``limits.EXPIRE_SECONDS``, and the oldest of too many; never the ``busy`` ones."""
        with self._lock:
            now, names = self._clock(), [name for name in self._seen if name not in busy]
            return [name for place, name in enumerate(names)
                    if place < len(names) - limits.MAX_VISITORS or now - self._seen[name][0] > limits.EXPIRE_SECONDS]
