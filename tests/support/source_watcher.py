"""Read a live source in a thread."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from streamdream.errors import StreamdreamError
from support.clips import number_of
from support.waiting import until


class Watcher:
    """Read a source in a thread; ``seen`` has the number in each picture and its time in seconds."""

    def __init__(self, source: Any) -> None:
        self.seen: list[tuple[int, float]] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.error: BaseException | None = None
        self._source = source
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            for frame in self._source:
                self.shapes.add(frame.image.shape)
                self.seen.append((number_of(frame.image), frame.pts_seconds))
        except StreamdreamError as error:
            self.error = error

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        until(condition, seconds, about=lambda: self.seen[-5:])

    def wait_for_news(self, seconds: float = 10) -> None:
        """Until the picture changes three times."""
        begin, changes = len(self.seen), 3
        self.wait_for(lambda: len({number for number, _ in self.seen[begin:]}) > changes, seconds)

    def wait_for_frames(self, count: int) -> None:
        begin = len(self.seen)
        self.wait_for(lambda: len(self.seen) >= begin + count)

    def wait_for_repeats(self) -> None:
        """Until the same picture came several times in a row."""
        begin = len(self.seen)
        self.wait_for(lambda: len(self.seen) > begin + 8 and len({number for number, _ in self.seen[-8:]}) == 1)

    def end(self) -> None:
        self._source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()
