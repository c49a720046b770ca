"""Describe durations."""
from __future__ import annotations


def describe_seconds(seconds: float) -> str:
    """Return the duration in at most two units: ``40 s``, ``3 min 20 s``, ``10 min``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in units if number) or "0 s"
