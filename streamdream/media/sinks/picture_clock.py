"""When pictures are shown: their times in the ticks of the output."""
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from streamdream.media.sinks.encoders import Container, encoder_row, find_codec, stored_tick
from streamdream.media.sinks.pixel_formats import wants_hdr
from streamdream.settings import RenderSettings

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

MAX_RATE = 1000
MAX_FRACTION_TERM = 65535
"""Of the rate as a fraction; the limit of MPEG-4."""


@dataclass
class PictureClock:
    """The times of pictures in ticks: rounded, and strictly increasing."""

    tick: Fraction
    """In seconds."""
    starts_at_zero: bool
    """Move the first picture to 0: such a container would move all later pictures to close the gap."""
    interval: Fraction = Fraction(0)
    """Seconds between pictures of a constant rate, where the time base of the source is too coarse for it."""
    tolerance: Fraction = Fraction(0)
    """How far off that rate a time is through rounding, at most; in seconds."""
    previous: int | None = None
    last_gap: int = 0
    max_shift: Fraction = Fraction(0)
    """Largest distance of a time from its picture's true time, in seconds."""
    _origin: Fraction | None = None

    def __call__(self, seconds: Fraction) -> int:
        seconds = self._at_constant_rate(seconds)
        pts = round(seconds / self.tick)
        if self.previous is not None:
            pts = max(pts, self.previous + 1)
            self.last_gap = pts - self.previous
        elif self.starts_at_zero:
            pts = 0
        self.max_shift = max(self.max_shift, abs(pts * self.tick - seconds))
        self.previous = pts
        return pts

    def _at_constant_rate(self, seconds: Fraction) -> Fraction:
        """The time that was rounded to this one, if the rate is constant."""
        self._origin = seconds if self._origin is None else self._origin
        if not self.interval:
            return seconds
        exact = self._origin + round((seconds - self._origin) / self.interval) * self.interval
        if abs(exact - seconds) <= self.tolerance:
            return exact
        self.interval = Fraction(0)  # the rate is not constant
        return seconds

    def end(self, source: Source) -> int:
        """When the last picture ends. A live source does not say it; its rate is nominal, and pictures may arrive
        faster.
        """
        assert self.previous is not None
        if source.last_duration:
            is_regular = abs(source.last_duration - self.interval) <= self.tolerance
            duration = round((self.interval if is_regular else source.last_duration) / self.tick)
        else:
            nominal = round(1 / source.rate / self.tick)
            duration = min(nominal, self.last_gap) if self.last_gap else nominal
        return self.previous + max(duration, 1)


@dataclass
class Thinning:
    """Leaves out pictures of a container that shows each for ``shortest`` seconds at least, and keeps the length.

    Times come in ``clock_tick`` and go in ``tick``, in seconds; the first becomes 0.
    """

    clock_tick: Fraction
    tick: Fraction
    shortest: Fraction
    is_regular: bool
    """Whether there are always too many: then they are left out evenly, by a raster of ``shortest``."""
    dropped: int = 0
    _first: int | None = None
    _previous: int | None = None

    def __call__(self, pts: int) -> int | None:
        """The new time; None for a picture that is left out."""
        self._first = pts if self._first is None else self._first
        seconds = (pts - self._first) * self.clock_tick
        least = round(self.shortest / self.tick)
        new = int(seconds / self.shortest) * least if self.is_regular else round(seconds / self.tick)
        if self._previous is not None and new < self._previous + least:
            self.dropped += 1
            return None
        self._previous = new
        return new

    def end(self, end_pts: int) -> int:
        assert self._first is not None and self._previous is not None
        return max(round((end_pts - self._first) * self.clock_tick / self.tick),
                   self._previous + round(self.shortest / self.tick))


def new_clock(kind: Container, source: Source, settings: RenderSettings) -> PictureClock:
    """The clock of a video of that source in that container. Raises UnknownName or UsageError for a wrong codec."""
    encoder = encoder_row(find_codec(settings.codec, kind, wants_hdr(source, settings), source.width).name)
    rate = stored_rate(source)
    tick = source.time_base if kind.shortest else stored_tick(source.time_base, rate, kind, encoder)
    coarse = (1 / rate / source.time_base).denominator > 1 and (1 / rate / tick).denominator == 1
    return PictureClock(tick, kind.tick is not None, 1 / rate if coarse else Fraction(0), source.time_base)


def stored_rate(source: Source) -> Fraction:
    """Frames per second, as a fraction that every container can hold."""
    rate = min(source.rate, Fraction(MAX_RATE))
    return rate.limit_denominator(max(int(MAX_FRACTION_TERM / rate), 1))
