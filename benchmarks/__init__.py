"""Measurements of streamdream, imported as ``streamdream_bench`` and run as ``streamdream bench NAME``.

A benchmark is a module with ``run(options, progress) -> Report`` and a row in BENCHES. Nothing here prints.
"""
from __future__ import annotations

import datetime
import importlib
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamdream.errors import UnknownName, UsageError
from streamdream.system.machine import processor_name

BENCHES: dict[str, str] = {
    "step": "streamdream_bench.step:run",
    "render": "streamdream_bench.render:run",
    "quality": "streamdream_bench.quality:run",
    "looks": "streamdream_bench.variety:run",
    "look-sheets": "streamdream_bench.look_sheets:run",
    "live": "streamdream_bench.live:run",
    "sessions": "streamdream_bench.sessions:run",
    "equality": "streamdream_bench.equality:run",
    "web": "streamdream_bench.web:run",
    "frame": "streamdream_bench.frame:run",
    "frame-equality": "streamdream_bench.frame_equality:run",
    "roofline": "streamdream_bench.roofline:run",
    "scaling": "streamdream_bench.scaling:run",
}

Progress = Callable[[str], None]
LAYERS = "mixed3"
"""Dreamed where no layers are named: all results so far are of it."""


def option(default: Any, help: str, advanced: bool = False) -> Any:
    """A field; ``--help`` leaves out an ``advanced`` one, ``-h full`` has all."""
    return field(default=default, metadata={"help": help, "advanced": advanced})


@dataclass(frozen=True)
class Options:
    """Options of the benchmarks; an empty string or 0 means the default of the benchmark."""

    clip: str = option("", "video to dream; empty for the sample clip (render, live, web) or for --footage (quality)")
    footage: str = option("", "kinds of footage, such as highway,water; empty for five (quality)")
    clips: str = option(os.environ.get("STREAMDREAM_CLIPS", ""), "folder with highway.mp4 and clouds.mp4, not "
                        "shipped; empty to leave these out (quality)")
    presets: str = option("", "presets to compare, with commas; empty for all looks (looks, look-sheets)")
    gain: float = option(0.0, "gain at which to compare; 0 for that of streamdream as it is (quality)")
    sheets: str = option("", "folder to write the sheets to (look-sheets)")
    model: str = option("inception_v3", "network (all)")
    layers: str = option("", "as --layers of render; empty for its default (all)")
    height: int = option(0, "height of the picture, px (all)")
    width: int = option(0, "width of the picture, px (all)")
    field_height: int = option(240, "lines of the field; 0 for those of the picture (render, quality, live, sessions, "
                                   "web)")
    sizes: str = option("", "several sizes, such as 320x240,1280x720; of frames with the lines of the field, as in "
                            "1920x1080:480 (step, frame, roofline); empty for one, or the defaults")
    octaves: int = option(1, "number of octaves to time (step)")
    octave_scale: float = option(1 / 0.6, "size ratio of neighbouring octaves (step)")
    frames: int = option(0, "frames of the clip (render, quality, looks), or number of steps to time (step)")
    seconds: float = option(0.0, "duration of each row, s (live, sessions, web), or of each render that is predicted "
                                 "(scaling)")
    rate: int = option(0, "frames per second of the camera (live, sessions)")
    sessions: int = option(0, "number of live sessions (sessions)")
    min_dream_rate: float = option(12.0, "as --min-dream-rate of live (live, sessions, web)")
    drift_frames: int = option(900, "frames of the still clip for drift; 0 to skip drift (quality)")
    drift_height: int = option(120, "height of the still clip, px (quality)")
    backend: str = option("auto", "auto for all that run here (step, equality), or for the fastest")
    device: str = option("auto", "as --device of render (all except web)")
    precision: str = option("auto", "auto for fp32 and the fastest (step), or for the fastest")
    frame_path: str = option("auto", "as --frame-path of render, which takes several, with commas, in turn "
                                     "(render, live, sessions)")
    encoder: str = option("", "as -c:v of render, or null for none; several, with commas, in turn; empty for the "
                              "default (render)")
    frame_ms: float = option(0.0, "time of a frame on a GPU, ms; 0 for that of this machine (scaling)")
    node_cores: int = option(16, "processor cores for each GPU (scaling)", advanced=True)
    driver_cores: int = option(16, "processor cores of the machine that scans and joins (scaling)",
                               advanced=True)
    seed: int = option(0, "seed of the random shifts (render, quality, looks, live)")


@dataclass(frozen=True)
class Report:
    """The results of a benchmark. ``conditions`` are the values that all rows share."""

    name: str
    conditions: dict[str, Any]
    rows: list[dict[str, Any]]

    def table(self) -> str:
        """Format the conditions, one per line, and the rows as aligned columns."""
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


def parse_sizes(text: str) -> list[tuple[int, int, int]]:
    """Parse ``1920x1080:480,320x240``: (width, height, lines of the field; 0 for all) of each. Raises UsageError."""
    number = r"([1-9]\d{0,4})"
    matches = [re.fullmatch(f"{number}x{number}(?::{number})?", part.strip()) for part in text.split(",")]
    if None in matches:
        raise UsageError(f"--sizes {text} is not understood; write 320x240 or 1920x1080:480, several with commas")
    return [(int(match[1]), int(match[2]), int(match[3] or 0)) for match in matches if match]


def run_bench(name: str, options: Options, progress: Progress = lambda line: None) -> Report:
    """Run the benchmark of that name; ``progress`` is called with status lines. Raises UnknownName."""
    if name not in BENCHES:
        raise UnknownName("benchmark", name, BENCHES)
    for option_name, value in vars(options).items():
        if isinstance(value, int | float) and value < 0:
            raise UsageError(f"--{option_name.replace('_', '-')} is {value}, but must not be negative")
    module, _, attribute = BENCHES[name].partition(":")
    report: Report = getattr(importlib.import_module(module), attribute)(options, progress)
    return report


def conditions(**more: Any) -> dict[str, Any]:
    """Return the machine and the versions, followed by the values of ``more``."""
    import torch

    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        **gpu_conditions(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        **more,
    }


def gpu_conditions() -> dict[str, str]:
    """Return the name of the first NVIDIA GPU and the version of its driver; nothing where PyTorch sees none."""
    import torch

    if not torch.cuda.is_available():
        return {}
    driver = Path("/sys/module/nvidia/version")
    found = {"driver": driver.read_text().strip()} if driver.exists() else {}
    return {"gpu": torch.cuda.get_device_name(), **found}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
