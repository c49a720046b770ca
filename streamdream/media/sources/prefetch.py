"""Prefetch items in a thread."""
from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(source: Iterable[Item], depth: int = 4, name: str = "decode") -> Generator[Item, None, None]:
    """The items of ``source``, prefetched in a thread; at most ``depth`` of them are queued.

    An error of the source is raised after the items before it. Closing the generator ends the thread.
    """
    ready: queue.SimpleQueue[Item | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            items = iter(source)
            while room.acquire() and not stop.is_set():
                item = next(items, None)
                ready.put(item)
                if item is None:
                    return
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name=f"streamdream-{name}", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        thread.join()
