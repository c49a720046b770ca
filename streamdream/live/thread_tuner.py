"""On how many threads a live dream is computed: as few as are about as fast as more.

A step has hundreds of small parallel parts, and at the end of each its threads wait for the last of them. Where others
want the processors too (a display at 60 a second, a browser, four visitors), that one is often not running, and one
thread is faster than two. Alone it is slower. So both are tried, again and again.
"""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from streamdream.system.torch_threads import on

ROUNDS = 2
"""Dreams of each octave for which a number is tried."""
HOLD, HOLD_ANOTHER = 240, 24
"""Dreams until they are tried again, and after the field has changed."""
ALIKE = 1.1
"""The fewest are taken that need no more than this times the time of the best."""


class Threads:
    """``number`` is for the next dream; ``trying`` says that it is a trial, whose time says nothing of the field.

    ``highest`` 1 tries nothing.
    """

    def __init__(self, highest: int) -> None:
        self._numbers = sorted({1, max(1, highest // 2), highest}, reverse=True)
        self._chosen = max(1, highest // 2)  # where one thread too many is dear, one too few is not
        self._field = self._wait = 0
        self._spent: list[list[float]] = [[]]

    @property
    def trying(self) -> bool:
        return self._wait == 0 and len(self._numbers) > 1

    @property
    def number(self) -> int:
        return self._numbers[len(self._spent) - 1] if self.trying else self._chosen

    def applied(self) -> AbstractContextManager[None]:
        """``number`` for what is computed meanwhile."""
        return on(self.number) if len(self._numbers) > 1 else nullcontext()

    def observe(self, seconds: float, field_height: int, octaves: int) -> None:
        """A dream on ``number`` threads took so long. Octaves have their turn one after the other."""
        if field_height != self._field:
            self._wait = min(self._wait, HOLD_ANOTHER) if self._field else 0
            self._field, self._spent = field_height, [[]]
            self._wait = max(self._wait, octaves)  # the first ones pay for preparations
        elif not self.trying:
            self._wait = max(0, self._wait - 1)
        else:
            self._spent[-1].append(seconds)
            if len(self._spent[-1]) >= ROUNDS * octaves:
                self._next()

    def _next(self) -> None:
        if len(self._spent) < len(self._numbers):
            self._spent.append([])
            return
        took = dict(zip(self._numbers, map(sum, self._spent), strict=True))
        self._chosen = min(number for number, seconds in took.items() if seconds <= ALIKE * min(took.values()))
        self._spent, self._wait = [[]], HOLD
