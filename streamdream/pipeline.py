"""START HERE: the way of a frame through streamdream, when a file is rendered.

    source ──frame──▶ carry ──seed──▶ dream ──residual──▶ compose ──▶ sink
    sources.py       carry.py,flow.py   dream.py,step.py     carry.py       sinks.py

The source decodes and the sink encodes in threads of their own; in between one frame after the other is dreamed here,
and ``state`` is all that one leaves to the next.
"""
from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamdream.errors import SourceError
from streamdream.sources import prefetch
from streamdream.stats import Stats, peak_rss_mb

if TYPE_CHECKING:
    from streamdream.dream import Dreamer
    from streamdream.references import References
    from streamdream.settings import DreamSettings, StreamSettings
    from streamdream.sinks import Sink
    from streamdream.sources import Source


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


def build_dreamer(stream: StreamSettings, stats: Stats | None = None) -> Dreamer:
    """Model, backend and dreamer for a run. Loads torch. Raises UsageError, ModelError or MissingPackage."""
    from streamdream import backends, models
    from streamdream.backends.tiled import Tiled
    from streamdream.dream import Dreamer

    model = models.get(stream.model)
    backend = Tiled(backends.create(stream.backend, model, stream.device, stream.precision), stream.tile_memory)
    return Dreamer(model, backend, stream.field_height, stream.seed, stats)


def render(source: Source, sink: Sink, dreamer: Dreamer, settings: DreamSettings,
           on_frame: Callable[[int], None] = lambda count: None,
           others_at: Callable[[float], References | None] = lambda pts_seconds: None,
           turn: Callable[[], AbstractContextManager[object]] = nullcontext) -> Report:
    """Dream every frame of the source into the sink and finish it. ``on_frame`` gets the number of frames done,
    ``others_at`` gives guide, style and mask of a time (``references.Player.at``), ``turn`` is entered for each dream:
    runs that share a device wait there for theirs.

    Raises SourceError when the source holds no frame; otherwise what source, dreamer or sink raise. The caller owns
    both ends: leaving ``with sink`` by an exception removes what was written.
    """
    from streamdream.dream import DreamState

    stats, state = dreamer.stats, DreamState()
    with closing(prefetch(source)) as frames:
        while True:
            with stats.stage("decode_wait"):
                frame = next(frames, None)
            if frame is None:
                break
            with turn():
                state, dream = dreamer(state, frame.image, settings, others_at(frame.pts_seconds))
            with stats.stage("encode_wait"):
                sink.write(dream, frame)
            on_frame(state.index)
    if not state.index:
        raise SourceError(f"{source.name} holds no frame to dream")
    with stats.stage("finish"):
        sink.finish()
    return summarize(dreamer, settings, state.index, state.cuts, dreamer.field_size(source.height, source.width),
                     source.warnings + sink.warnings)


def summarize(dreamer: Dreamer, settings: DreamSettings, frames: int, cuts: int, field: tuple[int, int],
              warnings: list[str]) -> Report:
    """The report of a run that has just ended."""
    stats, backend = dreamer.stats, dreamer.backend
    return Report(frames=frames, seconds=stats.elapsed_seconds, cuts=cuts, dropped=0, field=f"{field[1]}x{field[0]}",
                  layers=settings.layers, model=dreamer.model.name, backend=backend.name, precision=backend.precision,
                  device=str(backend.device), reason=backend.reason, stages=stats.stages(),
                  peak_rss_mb=round(peak_rss_mb(), 1), warnings=warnings)
