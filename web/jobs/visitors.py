"""The visitors of the tabs other than Live: the address of each."""
from __future__ import annotations

import threading

from ..core import limits


class Visitors:
    """Addresses by the names of visitors, as ``visitor_cookie.visitor_of`` returns them. Thread-safe."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        """Least recently seen first."""
        self._lock = threading.Lock()

    def seen(self, visitor: str, address: str = "") -> None:
        """Record that a visitor is here. An unknown ``address`` ("") does not replace a known one."""
        with self._lock:
            known_address = self._addresses.pop(visitor, "")
            self._addresses[visitor] = address or known_address
            while len(self._addresses) > limits.MAX_VISITORS:  # names come from browsers, and may be invented
                del self._addresses[next(iter(self._addresses))]

    def address(self, visitor: str) -> str:
        """Return "" when it is not known."""
        with self._lock:
            return self._addresses.get(visitor, "")
