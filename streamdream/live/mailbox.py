"""A mailbox between two threads: it holds only the newest item."""
from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Holds one item: a new one replaces one that was not taken. ``replaced`` counts those."""

    def __init__(self) -> None:
        self._item: Item | None = None
        self._closed = False
        self._changed = threading.Condition()
        self.replaced = 0

    def put(self, item: Item) -> None:
        with self._changed:
            self.replaced += self._item is not None
            self._item = item
            self._changed.notify()

    def take(self, timeout: float | None = None) -> Item | None:
        """Wait for an item and return it; return None when closed and empty, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    @property
    def closed(self) -> bool:
        """Whether the mailbox is closed and empty."""
        with self._changed:
            return self._closed and self._item is None

    def close(self) -> None:
        """End the stream of items; the last one may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
