"""A slot between two threads that holds the newest item only."""
from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    pass

Item = TypeVar("Item")
log = logging.getLogger(__name__)


class Mailbox(Generic[Item]):
    """One slot: what is put replaces what nobody took."""

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
        """The newest, as soon as there is one; None once the box is closed and empty, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    @property
    def closed(self) -> bool:
        """No more will come, and nothing is left."""
        with self._changed:
            return self._closed and self._item is None

    def close(self) -> None:
        """No more will come; what is in it may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
