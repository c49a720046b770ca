"""A live source that is never silent: a thread reads, and what is lost is opened again while the last picture stays.

    reader ──pictures──▶ one slot ──▶ frames, at least ten a second
       ▲                               (the last one again while nothing comes)
       └── opened again, ever more seldom, when it fails
"""
from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, StreamdreamError
from streamdream.media.container import ColorTags
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.media.sources.base import REPEAT_SECONDS, LiveSource, timestamped_frame

FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.25, 4.0
"""Between two attempts to open what was lost: the first, doubled each time, and the most."""
STABLE_SECONDS = 10.0
"""What was there for so long is opened again as quickly as at the first loss."""
SLOW = 0.8
"""A camera that gives less than this part of the rate it was asked for is worth a word."""
MEASURED_PICTURES, MEASURED_SECONDS = 15, 1.0
"""The rate of a camera is measured over so many pictures, or so long; before that it has settled for ..."""
UNMEASURED_PICTURES = 3
"""... so many: the first ones come late or in a bunch."""
CLOSE_SECONDS = 1.0
"""How long the end waits for a reader that is stuck; it ends by itself as soon as the system lets go of it."""
COMMON_RATES = (5, 7.5, 10, 12.5, 15, 20, 24, 25, 30, 48, 50, 60, 90, 120)
log = logging.getLogger(__name__)


class Reader(Protocol):
    """What gives pictures, in one thread. ``close`` is called in it, too."""

    rate: Fraction
    """Pictures per second; 0 where only measuring tells."""
    color: ColorTags
    pixel_aspect: Fraction
    damaged: int
    """Packets that could not be decoded so far."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """[H, W, 3] RGB, of any size. Ends at the end; raises SourceError when it is lost."""

    def close(self) -> None: ...


Open = Callable[[threading.Event], Reader]
"""Opens the source, raises SourceError when it is not there. What waits in the reader, waits on the event: it is set
when nobody wants any more."""


class ReconnectingSource(LiveSource):
    """The newest picture of a reader. The first one is there when it is made, so what never opened is an error at once.

    Pictures of another size are fitted into the first one's, with bars. At the reader's own end it ends, or with
    ``loop`` is opened anew. ``wanted_rate`` is what a camera was asked for. Raises what ``open`` raises.
    """

    def __init__(self, name: str, open: Open, loop: bool = False, wanted_rate: float = 0) -> None:
        super().__init__(name)
        self._open, self._loop, self._wanted_rate = open, loop, wanted_rate
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._fresh: tuple[NDArray[np.uint8], float] | None = None
        self._last: NDArray[np.uint8] | None = None
        self._arrivals: deque[float] = deque(maxlen=UNMEASURED_PICTURES + MEASURED_PICTURES)
        self._error: BaseException | None = None
        self._over = False
        self._told: dict[str, str] = {}
        self._pictures, self._losses, self._damaged = 0, 0, 0
        self._gone_seconds = 0.0
        self._lost_at: float | None = None
        self.rate = Fraction(0)
        self.start_seconds = self._sound_since = time.perf_counter()
        self._thread = threading.Thread(target=self._work, name="streamdream-read", daemon=True)
        self._thread.start()
        try:
            self._await_first()
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def _await_first(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fresh is not None or self._over)
            if self._error is not None:
                raise self._error
            if self._fresh is None:
                raise SourceError(f"{self.name} gives no picture")
            if not self.rate:
                self._changed.wait_for(lambda: self._over or len(self._arrivals) == self._arrivals.maxlen,
                                       MEASURED_SECONDS)
                arrivals = list(self._arrivals)
                self.rate = measured_rate(arrivals[min(UNMEASURED_PICTURES, len(arrivals) // 2):])
                log.info("%s gives %dx%d at %.3g pictures a second", self.name, self.width, self.height, self.rate)
        if self.rate < SLOW * self._wanted_rate:
            self._set_warning("rate", f"{self.name} gives {float(self.rate):.3g} pictures a second, not "
                               f"{self._wanted_rate:g}; in dim light, or at this size, many cameras are slow")

    # The caller's side.

    def __iter__(self) -> Iterator[Frame]:
        assert self.start_seconds is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._fresh is not None or self._over, REPEAT_SECONDS)
                fresh, self._fresh = self._fresh, None
                if fresh is None and self._over:
                    break
            if fresh is not None:
                self._last, at = fresh
            else:
                at = time.perf_counter()
            assert self._last is not None
            yield timestamped_frame(self._last, at - self.start_seconds)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._stop.set()
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    # The thread's side.

    def _work(self) -> None:
        try:
            wait = FIRST_WAIT_SECONDS
            while not self._stop.is_set():
                before = self._pictures
                try:
                    self._read()
                except StreamdreamError as error:
                    if not self._pictures:
                        raise
                    sound = self._lost_at is None and time.perf_counter() - self._sound_since > STABLE_SECONDS
                    wait = FIRST_WAIT_SECONDS if sound or not self._losses else min(2 * wait, MAX_WAIT_SECONDS)
                    self._on_disconnect(error, wait)
                    self._stop.wait(wait)
                else:
                    if not self._loop or self._pictures == before:
                        break
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _read(self) -> None:
        """Pictures until the end."""
        reader = self._open(self._stop)
        before = self._damaged
        try:
            for image in reader:
                if self._stop.is_set():
                    return
                if self._lost_at is not None:
                    self._on_reconnect(self._lost_at)
                self._put(image, reader)
                if reader.damaged:
                    self._damaged = before + reader.damaged
                    self._set_warning("damage", f"{self._damaged} damaged packets of {self.name} were skipped")
        finally:
            reader.close()

    def _put(self, image: NDArray[np.uint8], reader: Reader) -> None:
        now = time.perf_counter()
        self._pictures += 1
        if self._pictures == 1:
            self.height, self.width = image.shape[:2]
            self.rate, self.color, self.pixel_aspect = reader.rate, reader.color, reader.pixel_aspect
        elif image.shape[:2] != (self.height, self.width):
            self._set_warning(
                "size", f"{self.name} changes its size; all pictures are fitted into {self.width}x{self.height}"
            )
            image = resize_to(image, self.width, self.height)
        with self._changed:
            self._fresh = image, now
            self._arrivals.append(now)
            self._changed.notify_all()

    def _on_disconnect(self, error: StreamdreamError, wait: float) -> None:
        if self._lost_at is None:
            self._lost_at = time.perf_counter()
            self._losses += 1
        log.warning("%s; trying again in %.2g s", error, wait)
        self._count_losses(time.perf_counter() - self._lost_at)

    def _on_reconnect(self, lost_at: float) -> None:
        gone = time.perf_counter() - lost_at
        log.info("%s is back after %.1f s", self.name, gone)
        self._lost_at, self._sound_since = None, time.perf_counter()
        self._count_losses(gone)
        self._gone_seconds += gone

    def _count_losses(self, gone: float) -> None:
        self._set_warning(
            "loss", f"{self.name} was lost {times(self._losses)}, for {self._gone_seconds + gone:.1f} s in all"
        )

    def _set_warning(self, about: str, text: str) -> None:
        """One warning about each thing, the newest."""
        self._told[about] = text
        self.warnings[:] = self._told.values()


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def measured_rate(arrivals: list[float]) -> Fraction:
    """Pictures per second from the times at which they came, in seconds; that of the usual rates which is near."""
    if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
        return Fraction(1)
    rate = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
    usual = min(COMMON_RATES, key=lambda known: abs(known - rate))
    return Fraction(usual if abs(usual - rate) < 0.06 * rate else rate).limit_denominator(100)


def resize_to(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """All of the picture, as large as it fits into that size, with black bars beside it."""
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    how = cv2().INTER_AREA if scale < 1 else cv2().INTER_LINEAR
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    result = np.zeros((height, width, 3), np.uint8)
    result[top: top + inner[1], left: left + inner[0]] = cv2().resize(image, inner, interpolation=how)
    return result
