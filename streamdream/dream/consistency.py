"""Consistency: a dream that changes less from frame to frame, at the same strength.

What a frame's steps add is a constant part, which grows the dream against ``keep``, and noise of the random shift,
which flickers. With n times the memory and 1/n of the step the constant part stays and the noise is 1/n. A new dream
would then take n times as long, so where nothing is carried, and where the dream is young (see step_gain.py), steps
keep their length. Figures: docs/notebook/2026-11-28-legibility-and-consistency.md.
"""
from __future__ import annotations

from dataclasses import replace

from streamdream.settings import DreamSettings, maximum

LEAK, STEP, FIRST_STEP = 0.25, 0.28, 1.3
"""Factors at consistency 1: of ``1 - keep``, of the step, and of the steps on a frame that nothing is carried to."""
SHORTEST_STEP = 0.0001


def with_memory(settings: DreamSettings) -> DreamSettings:
    """Return the settings with ``keep``, ``step_size`` and ``regrowth`` of their consistency."""
    if not settings.consistency:
        return settings
    keep = 1 - (1 - settings.keep) * LEAK**settings.consistency
    factor = STEP**settings.consistency
    regrowth = settings.regrowth if settings.regrowth <= 1 else settings.regrowth / factor
    return replace(settings, keep=min(keep, maximum(DreamSettings, "keep")),
                   step_size=max(settings.step_size * factor, SHORTEST_STEP),
                   regrowth=min(regrowth, maximum(DreamSettings, "regrowth")))


def first_gain(settings: DreamSettings) -> float:
    """Return the factor of the steps on a frame that nothing is carried to."""
    return float((FIRST_STEP / STEP) ** settings.consistency)


def with_step(settings: DreamSettings, factor: float) -> DreamSettings:
    """Return the settings with steps so much longer."""
    if factor == 1:
        return settings
    return replace(settings, step_size=min(settings.step_size * factor, maximum(DreamSettings, "step_size")))
