"""Histograms of durations as counts by name, which add up over sessions: ``"frame_latency 0.05"`` counts what took at
most 0.05 s and more than the bound below.
"""
from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

FRAME_BOUNDS = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
JOB_BOUNDS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
INFINITE = "+Inf"


def bucket(name: str, seconds: float, bounds: tuple[float, ...]) -> str:
    """Return the name of the count that a duration belongs to."""
    return f"{name} {next((f'{bound:g}' for bound in bounds if seconds <= bound), INFINITE)}"


def cumulative(name: str, counts: Mapping[str, float], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return (upper bound in s, number of durations up to it), as Prometheus wants them; the last bound is "+Inf"."""
    labels = [f"{bound:g}" for bound in bounds] + [INFINITE]
    return list(zip(labels, accumulate(counts.get(f"{name} {label}", 0) for label in labels), strict=True))
