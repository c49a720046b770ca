"""Forget the dream of the previous content when another begins: each step amplifies what is there, so its shapes stay.

Three seconds after a change of look all of the old dream was still in the new one (correlation 0.97 to 1.02), though
``keep`` had faded it; figures: docs/notebook/2026-11-28-moving-camera.md.
"""
from __future__ import annotations

REMAINDER = 0.005
"""Fraction of the carried dream that a fade of usual length leaves; the new content adds to it meanwhile."""
AFTER_SECONDS = 0.5
"""How much longer than the crossfade the dream is being forgotten, as the old content adds to it until then."""
USUAL_SECONDS = 1.5
"""Duration, with ``AFTER_SECONDS``, of a usual fade. A slower one forgets less, by the square of the ratio, as its
shapes have time to grow out of the old ones."""


class Forgetting:
    """Decides how much of the carried dream each frame keeps. ``fade_seconds`` is the duration of the crossfade."""

    def __init__(self, fade_seconds: float) -> None:
        self.duration = fade_seconds + AFTER_SECONDS
        self.remainder = REMAINDER ** min(1.0, (USUAL_SECONDS / self.duration) ** 2)
        self._content: object = None
        self._last_seconds = 0.0
        self._left = 0.0  # seconds until the previous content is forgotten

    def kept_at(self, content: object, seconds: float) -> float:
        """Return the fraction to keep, 0..1, at the frame of that time; call it once a frame.

        The fractions of a whole fade multiply to ``remainder``, whatever the frame rate.
        """
        elapsed, self._last_seconds = max(0.0, seconds - self._last_seconds), seconds
        if content != self._content:
            self._left = 0.0 if self._content is None else self.duration
            self._content = content
            return 1.0
        elapsed = min(elapsed, self._left)
        self._left -= elapsed
        return float(self.remainder ** (elapsed / self.duration))
