"""Measurements of streamdream, imported as ``streamdream_bench`` and run as ``streamdream bench NAME``.

A benchmark is a module with ``run(options, progress) -> Report`` and a row in BENCHES. Nothing here prints.
"""
from __future__ import annotations

import datetime
import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamdream.errors import UnknownName
from streamdream.system.machine import processor_name

BENCHES: dict[str, str] = {
    "step": "streamdream_bench.step:run",
    "render": "streamdream_bench.render:run",
    "quality": "streamdream_bench.quality:run",
    "live": "streamdream_bench.live:run",
    "equality": "streamdream_bench.equality:run",
    "web": "streamdream_bench.web:run",
}

Progress = Callable[[str], None]


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """What is measured and how; an empty text or a 0 is the benchmark's own default."""

    clip: str = option("", "video to render or dream; gradio's world.mp4 when empty (render, quality)")
    model: str = option("inception_v3", "network (all)")
    layers: str = option("", "as --layers of render; its default when empty (all)")
    height: int = option(0, "of the picture, px (all)")
    width: int = option(0, "of the picture, px (all)")
    field_height: int = option(240, "lines at which the dream is computed; 0 is the picture's own (render, quality)")
    octaves: int = option(1, "sizes timed, each smaller than the last by the octave scale (step)")
    octave_scale: float = option(1 / 0.6, "size ratio between them (step)")
    frames: int = option(0, "frames of the clip (render, quality), or steps that are timed (step)")
    seconds: float = option(0.0, "that each row runs (live)")
    min_dream_rate: float = option(12.0, "as --min-dream-rate of live (live)")
    drift_frames: int = option(3000, "frames of the still clip that shows drift; 0 leaves drift out (quality)")
    drift_height: int = option(240, "of the still clip, px (quality)")
    backend: str = option("auto", "auto is every one that runs here (step), or the fastest (render, quality)")
    device: str = option("auto", "as --device of render (all)")
    precision: str = option("auto", "auto is fp32 and the fastest (step), or the fastest (render, quality)")
    seed: int = option(0, "of the random shifts (all)")


@dataclass(frozen=True)
class Report:
    """What a benchmark found. ``conditions`` is what the rows have in common."""

    name: str
    conditions: dict[str, Any]
    rows: list[dict[str, Any]]

    def table(self) -> str:
        """The conditions, a line each, and the rows as aligned columns."""
        widest = max(len(name) for name in self.conditions)
        head = [f"{name:<{widest}}  {_text(value)}" for name, value in self.conditions.items()]
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        cells = [columns] + [[_text(row.get(name)) for name in columns] for row in self.rows]
        widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
        body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in cells]
        return "\n".join([*head, "", *body])

    def to_json(self) -> dict[str, Any]:
        return {"conditions": self.conditions, "rows": self.rows}


def run_bench(name: str, options: Options, progress: Progress = lambda line: None) -> Report:
    """Runs the benchmark of that name; ``progress`` gets a line now and then. Raises UnknownName."""
    if name not in BENCHES:
        raise UnknownName("benchmark", name, BENCHES)
    module, _, attribute = BENCHES[name].partition(":")
    report: Report = getattr(importlib.import_module(module), attribute)(options, progress)
    return report


def conditions(**more: Any) -> dict[str, Any]:
    """The machine and the versions, then what the benchmark adds."""
    import torch

    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        **more,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
