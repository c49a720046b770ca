"""How large the field may be so that the dream is renewed often enough on this machine."""
from __future__ import annotations

import logging
from collections import deque
from statistics import median

HEIGHTS = (96, 120, 144, 176, 208, 240, 288, 336, 400, 480, 576, 720)
"""Lines; each about a fifth more than the one before, so that a change is hardly seen."""
FIRST = 144
"""Lines at the start. A slow machine shows a moving dream at once; a fast one is at its highest within seconds."""
SETTLED = 8
"""Dreams at one size before it is judged: the first ones pay for preparations."""
ROOM = 0.75
"""A larger field is taken when its cost, by its area, stays within this part of what is allowed."""
HOPELESS, TRIED = 2.0, 3
"""When so many dreams in a row each took more than so many times what is allowed, a smaller field is not waited for."""
log = logging.getLogger(__name__)


class Governor:
    """Chooses ``field_height``: ``highest`` or the largest of HEIGHTS below it that is renewed ``dream_hz`` times a
    second; and ``in_turn``: whether a dream steps on one octave, the next one in turn, or, where there is still room at
    the highest, on all. ``pinned`` keeps to ``highest``, in turn.
    """

    def __init__(self, highest: int, dream_hz: float, pinned: bool = False) -> None:
        heights = [height for height in HEIGHTS if height < highest] + [highest]
        self._ladder = [*((height, True) for height in heights), (highest, False)]
        self._rung = len(heights) - 1 if pinned else max(0, sum(height <= FIRST for height in heights) - 1)
        self._allowed_seconds = 1 / dream_hz
        self._pinned = pinned
        self._seconds: deque[float] = deque(maxlen=SETTLED)
        self._patience = 1
        self._lowest = 0

    @property
    def field_height(self) -> int:
        return self._ladder[self._rung][0]

    @property
    def in_turn(self) -> bool:
        return self._ladder[self._rung][1]

    def observe(self, seconds: float, number: int, octaves: int = 1, lines: int | None = None) -> None:
        """The dream of that number, of so many octaves, took so long; ``lines`` it had, unless all that were wanted.
        Where the picture has fewer, what they take says nothing of more.
        """
        self._seconds.append(seconds)
        if self._pinned or self._leave_what_is_hopeless() or len(self._seconds) < SETTLED or number % SETTLED:
            return
        usual = median(self._seconds)
        if usual > self._allowed_seconds and self._rung > self._lowest:
            self._move(-1, usual)
            self._patience = min(64, 2 * self._patience)  # what did not hold is tried again ever more seldom
        elif self._rung + 1 < len(self._ladder) and (lines is None or lines >= self.field_height):
            height, in_turn = self._ladder[self._rung + 1]
            growth = (height / self.field_height) ** 2 if in_turn else octaves
            if usual * growth < ROOM * self._allowed_seconds and number // SETTLED % self._patience == 0:
                self._move(1, usual)

    def onset(self, wanted: int, octaves: int) -> int:
        """How many of the further passes that begin a dream there is time for: the picture must go on meanwhile, and
        where they take seconds, a dream that grows is seen sooner.
        """
        if not self._seconds:
            return 0
        a_pass = median(self._seconds) * (octaves if self.in_turn else 1)
        return max(0, min(wanted, int(self._allowed_seconds / a_pass) - 1))

    def refuse(self) -> bool:
        """The field of now is too small for what is dreamed. Whether there is a larger one, which is taken then; no
        smaller one is, until ``allow_all``.
        """
        if self._pinned or self._rung + 1 >= len(self._ladder) - 1:
            return False
        self._lowest = self._rung + 1
        log.info("%d lines are too few for these layers: %d lines from here on", self.field_height,
                 self._ladder[self._lowest][0])
        self._set_rung(self._lowest)
        return True

    def allow_all(self) -> None:
        """Something else is dreamed now, which may fit a field that was refused."""
        self._lowest = 0

    def _leave_what_is_hopeless(self) -> bool:
        """For the highest rung below on which, by its area, a dream would be in time."""
        if len(self._seconds) < TRIED or self._rung == self._lowest:
            return False
        least = min(list(self._seconds)[-TRIED:])  # of octaves in turn, the cheapest
        if least <= HOPELESS * self._allowed_seconds:
            return False
        fitting = (rung for rung in range(self._lowest, self._rung)
                   if least * (self._ladder[rung][0] / self.field_height) ** 2 <= self._allowed_seconds)
        self._move(max(fitting, default=self._lowest) - self._rung, least)
        return True

    def _move(self, by: int, usual: float) -> None:
        before = self.field_height
        self._set_rung(self._rung + by)
        log.info("a dream on %d lines took %.0f ms, %.0f are allowed: %d lines from here on, %s", before,
                 1e3 * usual, 1e3 * self._allowed_seconds, self.field_height,
                 "one octave a dream" if self.in_turn else "all octaves")

    def _set_rung(self, rung: int) -> None:
        self._rung = rung
        self._seconds.clear()  # those of another field
