"""Files and filter graphs as live sources: each frame at its time, and at the end from the beginning again."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from streamdream.errors import SourceError
from streamdream.media.frame import Frame
from streamdream.media.sources.base import REPEAT_SECONDS, LiveSource, timestamped_frame
from streamdream.media.sources.video import Source

LATE_SECONDS = 1.0
"""A larger delay (the machine slept, or is too slow) is not made up for."""


class PacedFileSource(LiveSource):
    """The source that ``open`` returns, each frame at its time; with ``loop`` it is opened again at its end, and a
    single picture stays.

    While no frame is due, the last one is repeated. Raises SourceError when the file changes its size between two
    rounds, and what ``open`` raises.
    """

    def __init__(self, name: str, open: Callable[[], Source], loop: bool) -> None:
        super().__init__(name)
        self._open, self._loop = open, loop
        self._stop = threading.Event()
        self._source = open()
        self.width, self.height, self.rate = self._source.width, self._source.height, self._source.rate
        self.warnings = self._source.warnings
        self.color, self.pixel_aspect = self._source.color, self._source.pixel_aspect

    @property
    def decoder(self) -> str:
        return self._source.decoder

    def __iter__(self) -> Iterator[Frame]:
        self.start_seconds = time.perf_counter()
        shown_seconds, last = 0.0, None  # length of the rounds before; the last frame
        while not self._stop.is_set():
            end, first, count = shown_seconds, None, 0
            for frame in self._source:
                count += 1
                first = frame.pts_seconds if first is None else first
                due = shown_seconds + frame.pts_seconds - first
                while (wait := self._seconds_until(due)) > REPEAT_SECONDS and last is not None:
                    if self._stop.wait(REPEAT_SECONDS):
                        return
                    yield (last := timestamped_frame(last.image, min(due, time.perf_counter() - self.start_seconds)))
                if self._stop.wait(max(wait, 0)):
                    return
                yield (last := timestamped_frame(frame.image, due))
                end = due + float(1 / self.rate)
            if not self._loop or last is None or end == shown_seconds:
                return
            if count == 1:
                yield from self._repeat(last)
                return
            shown_seconds = end
            self._rewind()

    def _repeat(self, still: Frame) -> Iterator[Frame]:
        """A single picture, again and again."""
        assert self.start_seconds is not None
        while not self._stop.wait(REPEAT_SECONDS):
            yield timestamped_frame(still.image, time.perf_counter() - self.start_seconds)

    def _seconds_until(self, due: float) -> float:
        """Until a frame is due; moves the start of the clock when that was long ago."""
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
