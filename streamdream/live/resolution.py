"""Choose the largest field at which this machine reaches the requested dream rate."""
from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

HEIGHTS = (96, 120, 144, 176, 208, 240, 288, 336, 400, 480, 576, 720, 864, 1080, 1296, 1536, 1840, 2160)
"""Lines; each about a fifth more than the one before, so that a change is hardly visible."""
START_HEIGHT = 144
"""Lines at the start; low, for a smooth start on slow machines. A fast one reaches its maximum within seconds."""
WINDOW = 8
"""Dreams at one size before the controller decides: the first ones include warm-up."""
HEADROOM = 0.75
"""Fraction of the allowed time that a larger field, estimated by its area, may take."""
OVERLOAD_SAMPLES, OVERLOAD_FACTOR = 3, 2.0
"""The field shrinks at once when so many dreams in a row each take more than so many times the allowed time."""
FIRST_DREAM_SECONDS = 0.25
"""Time for the first dream of a run and its warm-up steps: until then there is none to show."""
MIN_SECONDS = 1e-6
"""Of a dream that a clock of coarse steps says took none."""
log = logging.getLogger(__name__)


class ResolutionController:
    """Chooses ``field_height`` and ``cycle_octaves`` from the measured durations of dreams.

    ``field_height`` is ``max_height``, or the largest of ``heights`` below it that reaches ``min_dream_rate``, in Hz.
    ``cycle_octaves`` is True for one octave per dream, in turn, and False for all of them, where ``max_height``
    leaves time for that. With ``fixed``, the field is always ``max_height``, with one octave per dream.
    """

    def __init__(self, max_height: int, min_dream_rate: float, fixed: bool = False, *,
                 heights: Sequence[int] = HEIGHTS, start_height: int = START_HEIGHT) -> None:
        lower = [height for height in heights if height < max_height]
        self._levels = [*((height, True) for height in (*lower, max_height)), (max_height, False)]
        self._level = len(lower) if fixed else max(0, bisect_right([*lower, max_height], start_height) - 1)
        self.required_rate = min_dream_rate
        self._allowed_seconds = 1 / min_dream_rate
        self._fixed = fixed
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._backoff = 1
        self._min_level = 0
        self._expected_seconds: float | None = None
        """Of a dream at the first field, by an earlier run."""

    def start_from(self, stored: Mapping[str, float]) -> None:
        """Begin with the largest field that was fast enough in an earlier run; call it before the first dream.

        ``stored`` is seconds of a dream by ``level``. Where they are wrong now, the field changes as after any change
        of the load; where there is none that was fast enough, it begins as without.
        """
        known = {number: stored[name] for number in range(len(self._levels))
                 if (name := self._name(number)) in stored}
        if not self._fixed:
            self._level = max((number for number, seconds in known.items() if seconds <= self._allowed_seconds),
                              default=self._level)
        self._expected_seconds = known.get(self._level)

    def start_from_largest(self) -> None:
        """Begin with the largest field and all octaves, on a device that is fast: what is too slow is noticed after
        three dreams, and each size on the way up would have to be prepared.
        """
        if not self._fixed:
            self._level = len(self._levels) - 1

    def require(self, rate: float, anew: bool = False) -> None:
        """Reach that rate of dreams, in Hz, from now on. ``anew``: forget how long dreams took so far."""
        self._allowed_seconds = 1 / rate
        if anew:
            self._seconds.clear()

    @property
    def is_too_slow(self) -> bool:
        """Whether dreams do not reach the rate, and the field cannot be made smaller."""
        return (len(self._seconds) == WINDOW and (self._fixed or self._level <= self._min_level)
                and median(self._seconds) > self._allowed_seconds)

    @property
    def level(self) -> str:
        """Name of the field and how it is dreamed: ``240``, or ``240 all octaves``."""
        return self._name(self._level)

    def _name(self, number: int) -> str:
        height, cycle_octaves = self._levels[number]
        return f"{height}{'' if cycle_octaves else ' all octaves'}"

    @property
    def field_height(self) -> int:
        return self._levels[self._level][0]

    @property
    def cycle_octaves(self) -> bool:
        return self._levels[self._level][1]

    def observe(self, seconds: float, number: int, octaves: int = 1, lines: int | None = None) -> None:
        """Record the duration of dream ``number`` with ``octaves`` octaves, and choose the next field.

        ``lines`` is the height at which it was dreamed; None for ``field_height``. With fewer lines, because the
        picture has no more, the field does not grow, as the duration says nothing about a larger one.
        """
        self._seconds.append(max(seconds, MIN_SECONDS))
        if self._fixed or self._drop_if_overloaded() or len(self._seconds) < WINDOW or number % WINDOW:
            return
        typical = median(self._seconds)
        if typical > self._allowed_seconds and self._level > self._min_level:
            self._move(-1, typical)
            self._backoff = min(64, 2 * self._backoff)  # exponential backoff before the larger field is tried again
        elif self._level + 1 < len(self._levels) and (lines is None or lines >= self.field_height):
            height, cycle_octaves = self._levels[self._level + 1]
            growth = (height / self.field_height) ** 2 if cycle_octaves else octaves
            if typical * growth < HEADROOM * self._allowed_seconds and number // WINDOW % self._backoff == 0:
                self._move(1, typical)

    def warmup_steps(self, requested: int, octaves: int, first: bool = False) -> int:
        """Return how many of the extra steps at the start of a dream fit into the time of one dream.

        The display must not wait for them: where they would take seconds, a dream that grows step by step is visible
        sooner. ``first``: nothing is shown yet, so there is more time.
        """
        typical = median(self._seconds) if self._seconds else self._expected_seconds
        if typical is None:
            return 0
        pass_seconds = typical * (octaves if self.cycle_octaves else 1)
        seconds = max(self._allowed_seconds, FIRST_DREAM_SECONDS) if first else self._allowed_seconds
        return max(0, min(requested, int(seconds / pass_seconds) - 1))

    def reject_current(self) -> bool:
        """Reject the current field as too small for the requested layers. Return whether a larger one was selected.

        It remains the minimum until ``reset_minimum``.
        """
        if self._fixed or self._level + 1 >= len(self._levels) - 1:
            return False
        self._min_level = self._level + 1
        log.info("a field of %d lines is too small for these layers: now %d lines", self.field_height,
                 self._levels[self._min_level][0])
        self._set_level(self._min_level)
        return True

    def reset_minimum(self) -> None:
        """Allow rejected fields again, as other layers are dreamed now."""
        self._min_level = 0

    def _drop_if_overloaded(self) -> bool:
        """If overloaded, select the highest level that is fast enough by its area. Return whether it was overloaded."""
        if len(self._seconds) < OVERLOAD_SAMPLES or self._level == self._min_level:
            return False
        fastest = min(list(self._seconds)[-OVERLOAD_SAMPLES:])  # with octaves in turn, that of the cheapest octave
        if fastest <= OVERLOAD_FACTOR * self._allowed_seconds:
            return False
        fitting = (level for level in range(self._min_level, self._level)
                   if fastest * (self._levels[level][0] / self.field_height) ** 2 <= self._allowed_seconds)
        self._move(max(fitting, default=self._min_level) - self._level, fastest)
        return True

    def _move(self, levels: int, seconds: float) -> None:
        old_height = self.field_height
        self._set_level(self._level + levels)
        log.info("a dream at %d lines took %.0f ms, the limit is %.0f ms: now %d lines, %s", old_height,
                 1e3 * seconds, 1e3 * self._allowed_seconds, self.field_height,
                 "one octave per dream" if self.cycle_octaves else "all octaves")

    def _set_level(self, level: int) -> None:
        self._level = level
        self._seconds.clear()  # they belong to another field
