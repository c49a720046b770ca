"""Timestamps: repaired where they are missing, run backwards or jump, and where to go on from.

A file may hold recordings that were joined, whose clock begins anew, and a clock may have jumped while it recorded:

    a step back by more than RESET_SECONDS      a restarted clock: all that follows is shifted behind what was before
    a step back by less                         an error of one picture: it is put one tick after the one before
    one picture far off, the next one is not    an error of one picture: it is put one step after the one before
    a jump ahead by more than MAX_GAP_SECONDS   a wrong clock: the gap is closed, as a restarted clock is
    the same, and sound goes on meanwhile       a pause of the picture, which stays
    a jump ahead by less                        a pause, as in what a camera records that waits for motion: it stays

Nothing but the times around a jump decides, so a render that goes on after it, a scan of packets (``PacketClock``)
and the picture itself (``TimestampRepair``) agree.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

    def to_json(self) -> list[Any]:
        return [self.raw_pts, self.shift, str(self.next_pts), self.last_pts]

    @classmethod
    def from_json(cls, values: list[Any]) -> SourcePosition:
        raw_pts, shift, next_pts, last_pts = values
        return cls(raw_pts, int(shift), Fraction(next_pts), last_pts)


class SoundSpans:
    """Where sound was met, to the second."""

    def __init__(self) -> None:
        self._seconds: set[int] = set()
        self._last = 0

    def add(self, seconds: float) -> None:
        second = int(seconds)
        if second < self._last - RESET_SECONDS:  # the clock has restarted
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
        self.has_strays = False
        """Whether a picture was far off: its time may be the end that the file states."""

    def position(self, raw_pts: int | None) -> SourcePosition:
        """The position of the next picture, which has that timestamp."""
        return SourcePosition(raw_pts, self.shift, self._next, self.last)

    def restore(self, position: SourcePosition) -> None:
        self.shift, self._next, self.last = position[1:]

    def is_jump(self, pts: int | None) -> bool:
        """Whether the timestamp of the picture after this one is needed, too."""
        return pts is not None and self.last is not None and abs(pts + self.shift - self.last) > self._reset

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
            return pts
        off = abs(pts - self.last)
        if following is not None and off > self._reset and 0 < following - self.last < off / 2:
            self.has_strays = True
            self._warn("has a timestamp that is far off; it was repaired")
            return round(self._next)
        if pts > self.last:
            return self._close_gap(pts) if pts - self.last > self._max_gap else pts
        self._warn("has timestamps that run backwards; they were repaired")
        return self._restart(pts) if self.last - pts > self._reset else self.last + 1

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


class PacketClock:
    """The same for the packets of all streams, in the order of the file, to copy or to count them.

    All streams get the shifts of the main one, which its pictures have. Times are in seconds; ``step`` is the distance
    of pictures.
    """

    def __init__(self, step: Fraction) -> None:
        self._step = step
        self._max_gap = max(Fraction(MAX_GAP_SECONDS), MAX_GAP_STEPS * step)
        self._sound = SoundSpans()
        self._epochs = [_Epoch(Fraction(0), [])]
        """One for each time that the clock of the main stream began."""
        self._streams: dict[int, tuple[int, Fraction]] = {}
        """Of each stream: its epoch, and its last time."""
        self._latest: Fraction | None = None
        """Presentation time of the main stream."""

    def main(self, pts: Fraction, dts: Fraction | None = None) -> Fraction:
        """The repaired presentation time of a packet of the main stream."""
        number = self._epoch_at(-1, pts if dts is None else dts)
        if number == len(self._epochs):
            assert self._latest is not None
            self._epochs.append(_Epoch(self._epochs[-1](self._latest) + self._step - pts, []))
            self._latest = pts
        elif self._latest is not None and self._is_beyond_gap(pts):
            self._epochs[-1].gaps.append(_Gap(self._latest + self._step, pts))
        elif self._epochs[-1].gaps:
            self._epochs[-1].gaps[-1].shrink(pts, self._step)
        self._latest = pts if self._latest is None else max(self._latest, pts)
        return self._epochs[-1](pts)

    def other(self, index: int, pts: Fraction, is_sound: bool) -> Fraction | None:
        """The repaired time of a packet of another stream; None where the main stream has not come that far: ask again
        after its next packet. At the end of the file its own time is as good as any.
        """
        before = self._streams.get(index)
        number = self._epoch_at(index, pts)
        if is_sound:
            self._sound.add(float(pts))
        if number < len(self._epochs) - 1:
            return self._epochs[number](pts)
        if number == len(self._epochs) or self._is_beyond_gap(pts):
            self._streams.pop(index)
            if before is not None:
                self._streams[index] = before
            return None
        return self._epochs[number](pts)

    def _is_beyond_gap(self, pts: Fraction) -> bool:
        """Whether a gap that is closed lies between the last picture and this time."""
        return (self._latest is not None and pts - self._latest > self._max_gap
                and not self._sound.covers(float(self._latest), float(pts)))

    def _epoch_at(self, index: int, time: Fraction) -> int:
        number, last = self._streams.get(index, (len(self._epochs) - 1, time))
        if time < last - RESET_SECONDS:  # a part without this stream may lie between
            number = max(number + 1, len(self._epochs) - (index != -1))
        self._streams[index] = number, time
        return number


class _Epoch(NamedTuple):
    """From one restart of a clock to the next."""

    shift: Fraction
    gaps: list[_Gap]
    """Those that are closed."""

    def __call__(self, time: Fraction) -> Fraction:
        return time + self.shift - sum((gap.end - gap.start for gap in self.gaps if gap.precedes(time)), Fraction(0))


@dataclass
class _Gap:
    start: Fraction
    """When the next picture was due."""
    end: Fraction
    """Presentation time of the first picture behind it."""

    def precedes(self, time: Fraction) -> bool:
        return time > (self.start + self.end) / 2

    def shrink(self, pts: Fraction, step: Fraction) -> None:
        """Where pictures are not in the order of decoding, some at its edges come after the packet that showed it."""
        if self.precedes(pts):
            self.end = min(self.end, pts)
        else:
            self.start = max(self.start, pts + step)


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
