"""What a render did, as data."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamdream.dream.report import RunReport, describe_run
from streamdream.media.hardware_decoding import SOFTWARE

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.settings import DreamSettings


@dataclass(frozen=True, kw_only=True)
class RenderReport(RunReport):
    """``as_json`` is what ``--json`` prints."""

    cuts: int
    resumed_frames: int = 0
    """Those of ``frames`` that an earlier run had dreamed."""

    @property
    def fps(self) -> float:
        return (self.frames - self.resumed_frames) / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 3), "fps": round(self.fps, 2)}


def summarize(dreamer: Dreamer, options: DreamOptions, settings: DreamSettings, size: tuple[int, int], frames: int,
              warnings: list[str], cuts: int = 0, decoder: str = SOFTWARE) -> RenderReport:
    """The report of a run that has just ended; ``size`` is (height, width) of its frames."""
    return RenderReport(frames=frames, seconds=options.stats.elapsed_seconds, dropped=0, cuts=cuts, warnings=warnings,
                        decoder=decoder, **describe_run(dreamer, options, settings, size))
