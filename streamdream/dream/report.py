"""The common part of the reports of renders and live runs."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamdream.media.hardware_decoding import SOFTWARE
from streamdream.system.stats import peak_rss_mb

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.settings import DreamSettings


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """``field`` is the size of the last field, such as ``426x240``; ``reason`` says why the backend was chosen,
    ``frame_path`` where the last frames were computed, see ``options.FRAME_PATHS``.
    """

    frames: int
    seconds: float
    dropped: int
    field: str
    layers: str
    model: str
    backend: str
    precision: str
    device: str
    reason: str
    frame_path: str
    stages: dict[str, dict[str, float]]
    peak_rss_mb: float
    warnings: list[str]
    decoder: str = SOFTWARE
    """What decoded the last frame: FFmpeg's type of a device, such as cuda, or this."""


def describe_run(dreamer: Dreamer, options: DreamOptions, settings: DreamSettings, size: tuple[int, int]
                 ) -> dict[str, Any]:
    """Return the fields of ``RunReport`` about model, backend and speed. ``size`` is (height, width) of the frames."""
    backend, (height, width) = dreamer.backend, options.field_size(*size)
    return {"field": f"{width}x{height}", "layers": settings.layers, "model": dreamer.model.name,
            "backend": backend.name, "precision": backend.precision, "device": str(backend.device),
            "reason": backend.reason, "frame_path": "device" if dreamer.on_device(settings, options) else "processor",
            "stages": options.stats.stages(), "peak_rss_mb": round(peak_rss_mb(), 1)}
