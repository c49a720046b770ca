"""Files and filter graphs as live sources: each frame when it is due, at the end from the beginning again."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from streamdream.errors import SourceError
from streamdream.media.frame import Frame
from streamdream.media.sources.base import REPEAT_SECONDS, LiveSource, timestamped_frame
from streamdream.media.sources.video import Source

LATE_SECONDS = 1.0
"""What is later than this (the machine slept, or is too slow) is not hurried after."""


class PacedFileSource(LiveSource):
    """What ``open`` gives, each frame when it is due; at its end once more, with ``loop``.

    While none is due for long, the last one is given again. Raises SourceError when the file changes its size between
    two rounds, and what ``open`` raises.
    """

    def __init__(self, name: str, open: Callable[[], Source], loop: bool) -> None:
        super().__init__(name)
        self._open, self._loop = open, loop
        self._stop = threading.Event()
        self._source = open()
        self.width, self.height, self.rate = self._source.width, self._source.height, self._source.rate
        self.warnings = self._source.warnings
        self.color, self.pixel_aspect = self._source.color, self._source.pixel_aspect

    def __iter__(self) -> Iterator[Frame]:
        self.start_seconds = time.perf_counter()
        shift, last = 0.0, None  # seconds that were shown before; the last frame
        while not self._stop.is_set():
            end, first = shift, None
            for frame in self._source:
                first = frame.pts_seconds if first is None else first
                due = shift + frame.pts_seconds - first
                while (wait := self._ahead(due)) > REPEAT_SECONDS and last is not None:
                    if self._stop.wait(REPEAT_SECONDS):
                        return
                    yield (last := timestamped_frame(last.image, min(due, time.perf_counter() - self.start_seconds)))
                if self._stop.wait(max(wait, 0)):
                    return
                yield (last := timestamped_frame(frame.image, due))
                end = due + float(1 / self.rate)
            if not self._loop or end == shift:
                return
            shift = end
            self._rewind()

    def _ahead(self, due: float) -> float:
        """Seconds until then."""
        assert self.start_seconds is not None
        ahead = self.start_seconds + due - time.perf_counter()
        if ahead < -LATE_SECONDS:
            self.start_seconds -= ahead
        return ahead

    def _rewind(self) -> None:
        self._source.close()
        self._source = self._open()
        if (self._source.width, self._source.height) != (self.width, self.height):
            raise SourceError(f"{self.name} has another size now")

    def close(self) -> None:
        self._stop.set()
        self._source.close()
