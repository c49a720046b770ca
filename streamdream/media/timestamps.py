"""Timestamps: repaired where they are missing, run backwards or jump, and where to go on from.

A file may hold recordings that were joined, whose clock begins anew, and a clock may have jumped while it recorded:

    a step back by more than RESET_SECONDS      a restarted clock: all that follows is shifted behind what was before
    a step back by less                         an error of one picture: it is put one tick after the one before
    one picture far off, the next one is not    an error of one picture: it is put one step after the one before
    a jump ahead by more than MAX_GAP_SECONDS   a wrong clock: the gap is closed, as a restarted clock is
    the same, and sound goes on meanwhile       a pause of the picture, which stays
    a jump ahead by less                        a pause, as in what a camera records that waits for motion: it stays

Nothing but the times around a jump decides, so a render that goes on after it, a scan of packets, sound that is copied
(``packet_clock.py``) and the pictures (``TimestampRepair``) agree.
"""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import islice, pairwise
from statistics import median
from typing import Any, NamedTuple

from streamdream.media.pyav import fraction

DEFAULT_RATE = Fraction(25)
"""Frames per second of an input without a rate, such as a sequence of pictures."""
MAX_RATE = 240
"""Higher average rates are doubted."""
MAX_INDEX_ENTRIES = 1000
RESET_SECONDS = 1
INTERLEAVING_SECONDS = 10
"""By which sound may lag behind other sound in a file; so much do FFmpeg's muxers allow."""
MAX_GAP_SECONDS = 600
MAX_GAP_STEPS = 50
"""Pictures an hour apart, as in time lapses, are no gap either."""


class SourcePosition(NamedTuple):
    """Where a frame is in its source: its own timestamp, and the state of ``TimestampRepair`` before it."""

    raw_pts: int | None
    """In ticks of the stream; None when the frame has none, and cannot be found by seeking."""
    shift: int
    next_pts: Fraction
    last_pts: int | None
    damaged: int = 0
    """Packets before it that could not be decoded."""

    def to_json(self) -> list[Any]:
        return [self.raw_pts, self.shift, str(self.next_pts), self.last_pts, self.damaged]

    @classmethod
    def from_json(cls, values: list[Any]) -> SourcePosition:
        raw_pts, shift, next_pts, last_pts, damaged = values
        return cls(raw_pts, int(shift), Fraction(next_pts), last_pts, int(damaged))


class SoundSpans:
    """Where sound was met, to the second."""

    def __init__(self) -> None:
        self._seconds: set[int] = set()
        self._last = 0

    def add(self, seconds: float) -> None:
        second = int(seconds)
        if second < self._last - INTERLEAVING_SECONDS:  # the clock has restarted
            self._seconds.clear()
        self._last = second
        self._seconds.add(second)

    def covers(self, start: float, end: float) -> bool:
        """Whether there was sound in most of a gap."""
        return sum(start + 1 < second < end - 1 for second in self._seconds) > (end - start) / 2


class TimestampRepair:
    """Make timestamps, in ticks, strictly increasing; those that are in order stay, and missing ones are filled in.

    ``step`` is the distance for missing timestamps, ``tick`` the seconds of a tick. ``warn`` is called at each repair
    with what was wrong. ``sound`` tells which gaps to leave.
    """

    def __init__(self, step: Fraction, tick: Fraction, warn: Callable[[str], None], sound: SoundSpans) -> None:
        self._step, self._tick, self._warn, self._sound = step, tick, warn, sound
        self._reset = RESET_SECONDS / tick
        self._max_gap = max(MAX_GAP_SECONDS / tick, MAX_GAP_STEPS * step)
        self.shift = 0
        """What is added to timestamps now."""
        self._next = Fraction(0)
        self.last: int | None = None
        self.has_doubtful_end = False
        """Whether a picture was far off, or the clock began anew: the end that the file states may be that of another
        clock.
        """

    def position(self, raw_pts: int | None, damaged: int = 0) -> SourcePosition:
        """The position of the next picture, which has that timestamp, after so many damaged packets."""
        return SourcePosition(raw_pts, self.shift, self._next, self.last, damaged)

    def restore(self, position: SourcePosition) -> None:
        self.shift, self._next, self.last = position[1:4]

    def is_jump(self, pts: int | None) -> bool:
        """Whether the timestamp of the picture after this one is needed, too."""
        return pts is not None and (self.last is None or abs(pts + self.shift - self.last) > self._reset)

    def __call__(self, pts: int | None, following: int | None = None) -> int:
        """``following`` is the timestamp of the next picture, which counts only at a jump."""
        if pts is None:
            repaired = round(self._next)
            self._next += self._step
        else:
            repaired = self._repair(pts + self.shift, None if following is None else following + self.shift)
            self._next = repaired + self._step
        self.last = repaired
        return repaired

    def _repair(self, pts: int, following: int | None) -> int:
        if self.last is None:
            if following is None or pts - following <= self._reset:
                return pts
            return self._put_in_line(round(following - self._step))
        off = abs(pts - self.last)
        if following is not None and off > self._reset and 0 < following - self.last < off / 2:
            return self._put_in_line(round(self._next))
        if pts > self.last:
            return self._close_gap(pts) if pts - self.last > self._max_gap else pts
        self._warn("has timestamps that run backwards; they were repaired")
        if self.last - pts <= self._reset:
            return self.last + 1
        self.has_doubtful_end = True
        return self._restart(pts)

    def _put_in_line(self, pts: int) -> int:
        self.has_doubtful_end = True
        self._warn("has a timestamp that is far off; it was repaired")
        return pts

    def _close_gap(self, pts: int) -> int:
        assert self.last is not None
        start, end = (float((time - self.shift) * self._tick) for time in (self.last, pts))
        if self._sound.covers(start, end):
            return pts
        self._warn(f"has timestamps that jump by {_duration(end - start)}; the gap was closed")
        return self._restart(pts)

    def _restart(self, pts: int) -> int:
        self.shift += round(self._next) - pts
        return round(self._next)


def frame_rate(stream: Any) -> Fraction:
    """Frames per second: the average that the container states, unless it cannot be.

    A DV tape states 60,000 a second. An mp4 with one timestamp ten hours off states a picture in ten minutes: then what
    most of its pictures say is the rate.
    """
    average, guessed = fraction(stream.average_rate), fraction(stream.guessed_rate)
    if average > MAX_RATE and guessed and guessed < average / 2:
        return guessed
    if average and "mov" in stream.container.format.name:
        times = [entry.timestamp for entry in islice(stream.index_entries, MAX_INDEX_ENTRIES)]
        usual = median(b - a for a, b in pairwise(times)) if len(times) > 2 else 0
        if usual > 0 and 1 / (Fraction(usual) * fraction(stream.time_base)) > MAX_GAP_STEPS * average:
            return 1 / (Fraction(usual) * fraction(stream.time_base))
    return average or guessed or DEFAULT_RATE


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
