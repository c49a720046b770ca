"""A live source that always gives frames: a thread reads, and reopens what is lost while the last picture is repeated.

    reader ──pictures──▶ the newest ──▶ frames, at least ten a second
       ▲                               (the last one again while nothing arrives)
       └── reopened when it fails, with a growing wait between attempts
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
from streamdream.media.frame import Frame
from streamdream.media.hardware_decoding import SOFTWARE, HardwareDecoding
from streamdream.media.input_container import ColorTags
from streamdream.media.reconnect import Reconnect
from streamdream.media.resize import letterbox
from streamdream.media.sources.base import REPEAT_SECONDS, LiveSource, timestamped_frame

FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, STABLE_SECONDS = 0.25, 4.0, 10.0
"""See ``Reconnect``."""
MIN_RATE_RATIO = 0.8
"""A camera that gives less than this part of the requested rate causes a warning."""
MEASURED_PICTURES, MEASURED_SECONDS = 15, 1.0
"""The rate of a camera is measured over this many pictures, or this time."""
UNMEASURED_PICTURES = 3
"""The first pictures arrive late or in a burst, so they do not count for the rate."""
BLACK_LEVEL, BLACK_SECONDS, BLACK_STEP = 16, 3.0, 16
"""A camera is black when no sampled value (each 16th row and column) is above the level for this long."""
CLOSE_SECONDS = 1.0
"""``close`` waits this long for a reader that is stuck; its thread ends when the system returns from the read."""
COMMON_RATES = (5, 7.5, 10, 12.5, 15, 20, 24, 25, 30, 48, 50, 60, 90, 120)
log = logging.getLogger(__name__)


class Reader(Protocol):
    """Gives pictures. All methods are called in one thread."""

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
"""Opens the source, raises SourceError when it is not there. The event is set by ``close``: the reader waits on it
instead of sleeping."""


class ReconnectingSource(LiveSource):
    """The newest picture of a reader. The constructor waits for the first one, so what cannot be opened raises at once.

    A picture of another size is fitted into the first one's, with bars. At the end of the reader the source ends, or
    with ``loop`` reopens it. ``requested_rate`` is what a camera was asked for, 0 for none; ``is_camera`` warns of
    black pictures. ``hardware`` is what the readers share, where a device may decode. Raises what ``open`` raises.
    """

    def __init__(self, name: str, open: Open, loop: bool = False, requested_rate: float = 0,
                 is_camera: bool = False, hardware: HardwareDecoding | None = None) -> None:
        super().__init__(name)
        self._hardware = hardware
        self._open, self._loop = open, loop
        self._requested_rate, self._is_camera = requested_rate, is_camera
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._fresh: tuple[NDArray[np.uint8], float] | None = None
        self._last: NDArray[np.uint8] | None = None
        self._arrivals: deque[float] = deque(maxlen=UNMEASURED_PICTURES + MEASURED_PICTURES)
        self._error: BaseException | None = None
        self._ended = False
        self._warning_of: dict[str, str] = {}
        self._pictures, self._damaged = 0, 0
        self._reconnect = Reconnect(name, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, STABLE_SECONDS)
        self.rate = Fraction(0)
        self.start_seconds = self._last_at = self._lit_at = time.perf_counter()
        self._thread = threading.Thread(target=self._work, name="streamdream-read", daemon=True)
        self._thread.start()
        try:
            self._await_first()
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def _await_first(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fresh is not None or self._ended)
            if self._error is not None:
                raise self._error
            if self._fresh is None:
                raise SourceError(f"{self.name} gives no picture")
            if not self.rate:
                self._changed.wait_for(lambda: self._ended or len(self._arrivals) == self._arrivals.maxlen,
                                       MEASURED_SECONDS)
                arrivals = list(self._arrivals)
                self.rate = measured_rate(arrivals[min(UNMEASURED_PICTURES, len(arrivals) // 2):])
                log.info("%s gives %dx%d at %.3g pictures a second", self.name, self.width, self.height, self.rate)
        if self.rate < MIN_RATE_RATIO * self._requested_rate:
            self._set_warning("rate", f"{self.name} gives {float(self.rate):.3g} pictures a second, not "
                               f"{self._requested_rate:g}; in dim light, or at this size, many cameras are slow")

    @property
    def decoder(self) -> str:
        return self._hardware.decoder if self._hardware else SOFTWARE

    # Called by the consumer.

    def __iter__(self) -> Iterator[Frame]:
        assert self.start_seconds is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._fresh is not None or self._ended, REPEAT_SECONDS)
                fresh, self._fresh = self._fresh, None
                if fresh is None and self._ended:
                    break
            if fresh is not None:
                self._last, at = fresh
            else:
                at = time.perf_counter()
                if self._reconnect.is_lost:
                    self._set_warning("loss", self._reconnect.summary)
            assert self._last is not None
            yield timestamped_frame(self._last, at - self.start_seconds)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._stop.set()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    # Called by the reading thread.

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                before = self._pictures
                try:
                    self._read()
                except StreamdreamError as error:
                    if not self._pictures:
                        raise
                    wait = self._reconnect.on_disconnect(error, self._last_at)
                    self._set_warning("loss", self._reconnect.summary)
                    self._stop.wait(wait)
                else:
                    if not self._loop or self._pictures == before:
                        break
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self) -> None:
        """Take pictures until the end of the reader."""
        reader = self._open(self._stop)
        damaged_before = self._damaged
        try:
            for image in reader:
                if self._stop.is_set():
                    return
                if self._reconnect.is_lost:
                    self._reconnect.on_reconnect()
                    self._set_warning("loss", self._reconnect.summary)
                self._put(image, reader)
                if reader.damaged:
                    self._damaged = damaged_before + reader.damaged
                    self._set_warning("damage", f"{self._damaged} damaged packets of {self.name} were skipped")
        finally:
            reader.close()

    def _put(self, image: NDArray[np.uint8], reader: Reader) -> None:
        self._last_at = now = time.perf_counter()
        self._pictures += 1
        if self._pictures == 1:
            self.height, self.width = image.shape[:2]
            self.rate, self.color, self.pixel_aspect = reader.rate, reader.color, reader.pixel_aspect
        elif image.shape[:2] != (self.height, self.width):
            self._set_warning(
                "size", f"{self.name} changes its size; all pictures are fitted into {self.width}x{self.height}"
            )
            image = letterbox(image, self.width, self.height)
        if self._is_camera:
            self._check_black(image, now)
        with self._changed:
            self._fresh = image, now
            self._arrivals.append(now)
            self._changed.notify_all()

    def _check_black(self, image: NDArray[np.uint8], now: float) -> None:
        if image[::BLACK_STEP, ::BLACK_STEP].max() > BLACK_LEVEL:
            self._lit_at = now
        elif now - self._lit_at > BLACK_SECONDS and "black" not in self._warning_of:
            text = (f"{self.name} has given only black pictures for {BLACK_SECONDS:g} s: is its lens covered, or does "
                    "another program use it?")
            log.warning("%s", text)
            self._set_warning("black", text)

    def _set_warning(self, topic: str, text: str) -> None:
        """Keep one warning a topic, the newest."""
        with self._changed:
            self._warning_of[topic] = text
            self.warnings[:] = self._warning_of.values()


def measured_rate(arrivals: list[float]) -> Fraction:
    """Pictures per second from their arrival times in seconds, rounded to a common rate within 6 %."""
    if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
        return Fraction(1)
    rate = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
    common = min(COMMON_RATES, key=lambda known: abs(known - rate))
    return Fraction(common if abs(common - rate) < 0.06 * rate else rate).limit_denominator(100)
