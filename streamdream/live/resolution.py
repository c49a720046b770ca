"""How large the field may be so that the dream is renewed often enough on this machine."""
from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from statistics import median

HEIGHTS = (96, 120, 144, 176, 208, 240, 288, 336, 400, 480, 576, 720)
"""Lines; each about a fifth more than the one before, so that a change is hardly seen."""
START_HEIGHT = 144
"""Lines at the start. A slow machine shows a moving dream at once; a fast one is at its highest within seconds."""
WINDOW = 8
"""Dreams at one size before it is judged: the first ones pay for preparations."""
HEADROOM = 0.75
"""A larger field is taken when its cost, by its area, stays within this part of what is allowed."""
OVERLOAD_FACTOR, OVERLOAD_SAMPLES = 2.0, 3
"""When so many dreams in a row each took more than so many times what is allowed, a smaller field is not waited for."""
log = logging.getLogger(__name__)


class ResolutionController:
    """Chooses ``field_height``: ``max_height``, or the largest of ``heights`` below it at which the dream is renewed
    ``min_dream_rate`` times a second. Chooses ``cycle_octaves``: whether a dream steps on one octave, the next one in
    turn, or, where ``max_height`` leaves time for it, on all. ``fixed`` keeps to ``max_height``, octaves in turn.
    """

    def __init__(self, max_height: int, min_dream_rate: float, fixed: bool = False, *,
                 heights: Sequence[int] = HEIGHTS, start_height: int = START_HEIGHT) -> None:
        lower = [height for height in heights if height < max_height]
        self._levels = [*((height, True) for height in (*lower, max_height)), (max_height, False)]
        self._level = len(lower) if fixed else max(0, bisect_right([*lower, max_height], start_height) - 1)
        self._allowed_seconds = 1 / min_dream_rate
        self._fixed = fixed
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._backoff = 1
        self._min_level = 0

    @property
    def field_height(self) -> int:
        return self._levels[self._level][0]

    @property
    def cycle_octaves(self) -> bool:
        return self._levels[self._level][1]

    def observe(self, seconds: float, number: int, octaves: int = 1, lines: int | None = None) -> None:
        """The dream of that number, of so many octaves, took so long; ``lines`` it had, unless all that were wanted.
        Where the picture has fewer, what they take says nothing of more.
        """
        self._seconds.append(seconds)
        if self._fixed or self._drop_if_overloaded() or len(self._seconds) < WINDOW or number % WINDOW:
            return
        usual = median(self._seconds)
        if usual > self._allowed_seconds and self._level > self._min_level:
            self._move(-1, usual)
            self._backoff = min(64, 2 * self._backoff)  # what did not hold is tried again ever more seldom
        elif self._level + 1 < len(self._levels) and (lines is None or lines >= self.field_height):
            height, in_turn = self._levels[self._level + 1]
            growth = (height / self.field_height) ** 2 if in_turn else octaves
            if usual * growth < HEADROOM * self._allowed_seconds and number // WINDOW % self._backoff == 0:
                self._move(1, usual)

    def warmup_steps(self, wanted: int, octaves: int) -> int:
        """How many of the further passes that begin a dream there is time for: the picture must go on meanwhile, and
        where they take seconds, a dream that grows is seen sooner.
        """
        if not self._seconds:
            return 0
        a_pass = median(self._seconds) * (octaves if self.cycle_octaves else 1)
        return max(0, min(wanted, int(self._allowed_seconds / a_pass) - 1))

    def reject_current(self) -> bool:
        """The field of now is too small for what is dreamed. Whether there is a larger one, which is taken then; no
        smaller one is, until ``allow_all``.
        """
        if self._fixed or self._level + 1 >= len(self._levels) - 1:
            return False
        self._min_level = self._level + 1
        log.info("%d lines are too few for these layers: %d lines from here on", self.field_height,
                 self._levels[self._min_level][0])
        self._set_level(self._min_level)
        return True

    def reset_minimum(self) -> None:
        """Something else is dreamed now, which may fit a field that was refused."""
        self._min_level = 0

    def _drop_if_overloaded(self) -> bool:
        """For the highest rung below on which, by its area, a dream would be in time."""
        if len(self._seconds) < OVERLOAD_SAMPLES or self._level == self._min_level:
            return False
        least = min(list(self._seconds)[-OVERLOAD_SAMPLES:])  # of octaves in turn, the cheapest
        if least <= OVERLOAD_FACTOR * self._allowed_seconds:
            return False
        fitting = (rung for rung in range(self._min_level, self._level)
                   if least * (self._levels[rung][0] / self.field_height) ** 2 <= self._allowed_seconds)
        self._move(max(fitting, default=self._min_level) - self._level, least)
        return True

    def _move(self, by: int, usual: float) -> None:
        before = self.field_height
        self._set_level(self._level + by)
        log.info("a dream on %d lines took %.0f ms, %.0f are allowed: %d lines from here on, %s", before,
                 1e3 * usual, 1e3 * self._allowed_seconds, self.field_height,
                 "one octave a dream" if self.cycle_octaves else "all octaves")

    def _set_level(self, rung: int) -> None:
        self._level = rung
        self._seconds.clear()  # those of another field
