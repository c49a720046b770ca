"""Choose the number of threads for a live dream: the smallest that is about as fast as the best.

A step has hundreds of small parallel sections, and at the end of each all threads wait for the slowest. When other work
needs the cores too (a display at 60 frames per second, a browser, four visitors), that thread is often not scheduled,
and one thread is faster than two. On an idle machine it is slower. So the numbers are measured again and again.
"""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from streamdream.system.torch_threads import use_threads

PROBE_ROUNDS = 2
"""Dreams per octave for which a number is measured."""
REPROBE_AFTER, REPROBE_AFTER_RESIZE = 240, 24
"""Dreams until the next measurement; the second applies after a change of the field."""
TOLERANCE = 1.1
"""The smallest number is chosen that takes at most this many times the time of the best."""


class ThreadTuner:
    """``number`` is the number of threads for the next dream. While ``probing``, the time of that dream says nothing
    about the field.

    ``maximum`` is the largest number to try; with 1 nothing is measured.
    """

    def __init__(self, maximum: int) -> None:
        self._numbers = sorted({1, max(1, maximum // 2), maximum}, reverse=True)
        self._chosen = max(1, maximum // 2)  # one thread too many costs more than one too few
        self._field_height = self._dreams_to_probe = 0
        self._durations: list[list[float]] = [[]]
        """Seconds of the dreams with each of the numbers measured so far."""

    @property
    def probing(self) -> bool:
        return self._dreams_to_probe == 0 and len(self._numbers) > 1

    @property
    def number(self) -> int:
        return self._numbers[len(self._durations) - 1] if self.probing else self._chosen

    def applied(self) -> AbstractContextManager[None]:
        """Return a context in which PyTorch uses ``number`` threads."""
        return use_threads(self.number) if len(self._numbers) > 1 else nullcontext()

    def observe(self, seconds: float, field_height: int, octaves: int) -> None:
        """Record the duration of a dream on ``number`` threads, one of ``octaves`` octaves that are dreamed in turn."""
        if field_height != self._field_height:
            self._dreams_to_probe = min(self._dreams_to_probe, REPROBE_AFTER_RESIZE) if self._field_height else 0
            self._field_height, self._durations = field_height, [[]]
            self._dreams_to_probe = max(self._dreams_to_probe, octaves)  # the first ones include warm-up
        elif not self.probing:
            self._dreams_to_probe = max(0, self._dreams_to_probe - 1)
        else:
            self._durations[-1].append(seconds)
            if len(self._durations[-1]) >= PROBE_ROUNDS * octaves:
                self._next()

    def _next(self) -> None:
        """Measure the next number, or choose the best after the last."""
        if len(self._durations) < len(self._numbers):
            self._durations.append([])
            return
        totals = dict(zip(self._numbers, map(sum, self._durations), strict=True))
        self._chosen = min(number for number, total in totals.items() if total <= TOLERANCE * min(totals.values()))
        self._durations, self._dreams_to_probe = [[]], REPROBE_AFTER
