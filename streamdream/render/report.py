"""What a render did, as data."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamdream.system.stats import peak_rss_mb

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.settings import DreamSettings


@dataclass(frozen=True)
class Report:
    """What a run did; ``as_json`` is what ``--json`` prints."""

    frames: int
    seconds: float
    cuts: int
    dropped: int
    field: str
    layers: str
    model: str
    backend: str
    precision: str
    device: str
    reason: str
    stages: dict[str, dict[str, float]]
    peak_rss_mb: float
    warnings: list[str]

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {"frames": self.frames, "seconds": round(self.seconds, 3), "fps": round(self.fps, 2), **{
            name: getattr(self, name) for name in (
                "backend", "precision", "device", "model", "layers", "field", "stages", "dropped", "peak_rss_mb",
                "cuts", "reason", "warnings")}}


def summarize(dreamer: Dreamer, options: DreamOptions, settings: DreamSettings, size: tuple[int, int], frames: int,
              warnings: list[str], cuts: int = 0) -> Report:
    """The report of a run that has just ended; ``size`` is (height, width) of its frames."""
    stats, backend, field = options.stats, dreamer.backend, options.field_size(*size)
    return Report(frames=frames, seconds=stats.elapsed_seconds, cuts=cuts, dropped=0, field=f"{field[1]}x{field[0]}",
                  layers=settings.layers, model=dreamer.model.name, backend=backend.name, precision=backend.precision,
                  device=str(backend.device), reason=backend.reason, stages=stats.stages(),
                  peak_rss_mb=round(peak_rss_mb(), 1), warnings=warnings)
