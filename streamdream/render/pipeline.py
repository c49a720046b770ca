"""START HERE: the way of a frame through streamdream, when a file is rendered.

    source ──frame──▶ match ──flow──▶ carry ──seed──▶ dream ──residual──▶ compose ──▶ sink
    sources.py     match.py,flow.py    carry.py    dream.py,step.py        carry.py     sinks.py

The source decodes and the sink encodes in threads of their own; in between one frame after the other is dreamed here,
and ``state`` is all that one leaves to the next. Where a GPU dreams, the next frame is matched meanwhile.
"""
from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streamdream.automation.automation import Play
from streamdream.automation.controls import Controls
from streamdream.automation.model_switcher import Cast
from streamdream.dream.frame_matching import Match, in_order
from streamdream.errors import SourceError
from streamdream.media.sources.video import prefetch
from streamdream.settings import parse_memory
from streamdream.system.stats import Stats, peak_rss_mb

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.reference_images import References
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.registry import Sink
    from streamdream.media.sources.video import Source
    from streamdream.settings import DreamSettings, StreamSettings


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
    from streamdream.dream.dreamer import Dreamer
    from streamdream.system import memory

    model = models.get(stream.model)
    backend = Tiled(backends.create(stream.backend, model, stream.device, stream.precision), stream.tile_memory)
    memory.set_limit(parse_memory(stream.memory), backend.device)
    return Dreamer(model, backend, stream.field_height, stream.seed, stats)


def render(source: Source, sink: Sink, dreamer: Dreamer, settings: DreamSettings | Play,
           on_frame: Callable[[int], None] = lambda count: None,
           others_at: Callable[[float], References | None] = lambda pts_seconds: None,
           build: Callable[[str], Dreamer] | None = None,
           turn: Callable[[], AbstractContextManager[object]] = nullcontext) -> Report:
    """Dream every frame of the source into the sink and finish it. ``on_frame`` gets the number of frames done,
    ``others_at`` gives guide, style and mask of a time (``references.Player.at``). A ``Play`` changes the settings on
    the way, and the network, of which ``build`` makes a dreamer. ``turn`` is entered for each dream: runs that share a
    device wait there for theirs.

    Raises SourceError when the source holds no frame; otherwise what source, dreamer or sink raise. The caller owns
    both ends: leaving ``with sink`` by an exception removes what was written.
    """
    from streamdream.dream.dreamer import DreamState

    play = settings if isinstance(settings, Play) else Play(Controls(settings))
    stats, state, resets, cast = dreamer.stats, DreamState(), play.controls.resets, Cast(dreamer, build, patient=True)
    with closing(prefetch(source)) as frames, closing(_matched(frames, dreamer, play)) as pairs:
        while True:
            with stats.stage("decode_wait"):
                pair = next(pairs, None)
            if pair is None:
                break
            frame, known = play.see(pair[0]), pair[1]
            dreamer, wish = cast.dreamer_of(play.wish(frame.pts_seconds), play.controls)
            if resets != play.controls.resets:
                state, resets = replace(state, residual=None), play.controls.resets
            with turn():
                state, dream = dreamer(state, frame.image, wish.dream, others_at(frame.pts_seconds), known)
            with stats.stage("encode_wait"):
                sink.write(dream, frame)
            on_frame(state.index)
    if not state.index:
        raise SourceError(f"{source.name} holds no frame to dream")
    with stats.stage("finish"):
        sink.finish()
    return summarize(dreamer, play.controls.now(), state.index, state.cuts,
                     dreamer.field_size(source.height, source.width), source.warnings + sink.warnings)


def _matched(frames: Iterable[Frame], dreamer: Dreamer, play: Play
             ) -> Generator[tuple[Frame, Match | None], None, None]:
    """Each frame, and how it matches the one before it, where that is worth being known beforehand."""
    if matches_ahead(dreamer):
        yield from prefetch(in_order(frames, dreamer, play.controls.now), 1, "match")
    else:
        yield from ((frame, None) for frame in frames)


def matches_ahead(dreamer: Dreamer) -> bool:
    """Where steps and flow are computed by the same two cores it gained nothing: CONTRIBUTING.md has the figures."""
    return dreamer.backend.device.type != "cpu"


def summarize(dreamer: Dreamer, settings: DreamSettings, frames: int, cuts: int, field: tuple[int, int],
              warnings: list[str]) -> Report:
    """The report of a run that has just ended."""
    stats, backend = dreamer.stats, dreamer.backend
    return Report(frames=frames, seconds=stats.elapsed_seconds, cuts=cuts, dropped=0, field=f"{field[1]}x{field[0]}",
                  layers=settings.layers, model=dreamer.model.name, backend=backend.name, precision=backend.precision,
                  device=str(backend.device), reason=backend.reason, stages=stats.stages(),
                  peak_rss_mb=round(peak_rss_mb(), 1), warnings=warnings)
