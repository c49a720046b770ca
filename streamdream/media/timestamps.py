"""Timestamps of decoded pictures: repaired where they are missing or run backwards, and where to go on from."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple


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


class TimestampRepair:
    """Make timestamps, in ticks, strictly increasing; those that are in order stay, and missing ones are filled in.

    ``step`` is the distance for missing timestamps. A jump back by more than ``reset`` is a restarted clock (two
    recordings in one file) and shifts all timestamps after it. ``warn`` is called at each repair.
    """

    def __init__(self, step: Fraction, reset: Fraction, warn: Callable[[], None]) -> None:
        self._step, self._reset, self._warn = step, reset, warn
        self._shift = 0
        self._next = Fraction(0)
        self.last: int | None = None

    def position(self, raw_pts: int | None) -> SourcePosition:
        """The position of the next picture, which has that timestamp."""
        return SourcePosition(raw_pts, self._shift, self._next, self.last)

    def restore(self, position: SourcePosition) -> None:
        self._shift, self._next, self.last = position[1:]

    def __call__(self, pts: int | None) -> int:
        if pts is None:
            repaired = round(self._next)
            self._next += self._step
        else:
            repaired = self._forward(pts + self._shift)
            self._next = repaired + self._step
        self.last = repaired
        return repaired

    def _forward(self, pts: int) -> int:
        if self.last is None or pts > self.last:
            return pts
        self._warn()
        if self.last - pts <= self._reset:
            return self.last + 1
        self._shift += round(self._next) - pts
        return round(self._next)
