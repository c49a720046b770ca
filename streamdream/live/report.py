"""What a live run did, as data."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamdream.dream.report import RunReport


@dataclass(frozen=True, kw_only=True)
class LiveReport(RunReport):
    """Times in ms are from a frame's capture until the sink had it. Of a long run, latency and jitter are those of its
    last ten minutes or more, the longest gap is that of all of it.

    ``fields`` counts the dreams on each field that the resolution controller chose, as ``426x240`` or
    ``426x240 all octaves``.
    """

    captured: int
    dreams: int
    steps: int
    latency_ms: dict[str, float]
    longest_gap_ms: float
    jitter_ms: float
    cpu_share: float
    fields: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        seconds = self.seconds or float("inf")  # a run that ended at once has no rates
        rates = {"fps": self.frames / seconds, "display_fps": self.frames / seconds,
                 "dream_fps": self.dreams / seconds, "steps_per_s": self.steps / seconds,
                 "shown_ratio": self.frames / max(1, self.captured)}
        return {**{name: round(value, 3) for name, value in rates.items()}, **vars(self)}
