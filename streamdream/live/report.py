"""The report of a live run."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamdream.dream.report import RunReport


@dataclass(frozen=True, kw_only=True)
class LiveReport(RunReport):
    """``latency_ms`` is from the capture of a frame to the return of the sink. For a long run, latency and jitter are
    those of at least the last ten minutes; ``longest_gap_ms`` is that of the whole run.

    ``fields`` counts the dreams at each field size, with keys such as ``426x240`` or ``426x240 all octaves``.
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
