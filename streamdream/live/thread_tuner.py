"""On how many threads a live dream is computed: as few as are about as fast as more.

A step has hundreds of small parallel parts, and at the end of each its threads wait for the last of them. Where others
want the processors too (a display at 60 a second, a browser, four visitors), that one is often not running, and one
thread is faster than two. Alone it is slower. So both are tried, again and again.
"""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from streamdream.system.torch_threads import use_threads

PROBE_ROUNDS = 2
"""Dreams of each octave for which a number is tried."""
REPROBE_AFTER, REPROBE_AFTER_RESIZE = 240, 24
"""Dreams until they are tried again, and after the field has changed."""
TOLERANCE = 1.1
"""The fewest are taken that need no more than this times the time of the best."""


class ThreadTuner:
    """``number`` is for the next dream; ``trying`` says that it is a trial, whose time says nothing of the field.

    ``highest`` 1 tries nothing.
    """

    def __init__(self, highest: int) -> None:
        self._numbers = sorted({1, max(1, highest // 2), highest}, reverse=True)
        self._chosen = max(1, highest // 2)  # where one thread too many is dear, one too few is not
        self._field = self._wait = 0
        self._spent: list[list[float]] = [[]]

    @property
    def probing(self) -> bool:
        return self._wait == 0 and len(self._numbers) > 1

    @property
    def number(self) -> int:
        return self._numbers[len(self._spent) - 1] if self.probing else self._chosen

    def applied(self) -> AbstractContextManager[None]:
        """``number`` for what is computed meanwhile."""
        return use_threads(self.number) if len(self._numbers) > 1 else nullcontext()

    def observe(self, seconds: float, field_height: int, octaves: int) -> None:
        """A dream on ``number`` threads took so long. Octaves have their turn one after the other."""
        if field_height != self._field:
            self._wait = min(self._wait, REPROBE_AFTER_RESIZE) if self._field else 0
            self._field, self._spent = field_height, [[]]
            self._wait = max(self._wait, octaves)  # the first ones pay for preparations
        elif not self.probing:
            self._wait = max(0, self._wait - 1)
        else:
            self._spent[-1].append(seconds)
            if len(self._spent[-1]) >= PROBE_ROUNDS * octaves:
                self._next()

    def _next(self) -> None:
        if len(self._spent) < len(self._numbers):
            self._spent.append([])
            return
        took = dict(zip(self._numbers, map(sum, self._spent), strict=True))
        self._chosen = min(number for number, seconds in took.items() if seconds <= TOLERANCE * min(took.values()))
        self._spent, self._wait = [[]], REPROBE_AFTER
