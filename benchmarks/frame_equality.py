"""Compare the two paths of a frame, on the device and on the processor, over a clip, with the same flow.

One difference is measured on the first frame, which carries nothing; then what can be compared of two dreams that
diverge, as a step that follows a rounding does: flicker and gain.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from streamdream.dream.build import build_dreamer
from streamdream.settings import DreamSettings, StreamSettings

from . import LAYERS, Options, Progress, Report, conditions, quality
from .baselines import streamdream
from .equal_gain import Clip
from .frame_program import FLOW
from .metrics import flicker

PATHS = ("processor", "device")
DEFAULT_SIZE = (240, 320)
DEFAULT_FRAMES = 30


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each clip and path; those of ``device`` have the differences to ``processor``."""
    height, width = options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1]
    settings = DreamSettings(layers=options.layers or LAYERS, flow=FLOW)
    dreamers = {path: build_dreamer(StreamSettings(
        model=options.model, field_height=options.field_height, backend=options.backend, device=options.device,
        precision=options.precision, seed=options.seed, frame_path=path)) for path in PATHS}
    rows: list[dict[str, Any]] = []
    for name, loaded in quality.load(options, height, width):
        frames = loaded[:options.frames or DEFAULT_FRAMES]
        clip = Clip.of(name, frames, dreamers["processor"], settings)
        first: dict[str, Any] = {}
        for path, dreamer in dreamers.items():
            progress(f"{name}, {path}: {len(frames)} frames")
            dreams = list(streamdream(frames, dreamer, settings))
            shown = dreams[clip.first - 1:]
            row = {"clip": name, "path": path, "backend": dreamer.backend.name, "precision": dreamer.backend.precision,
                   "gain": round(clip.gain(shown), 4), "flicker": round(flicker(shown, clip.shown, clip.motions, 1), 4)}
            if first:
                apart = np.abs(dreams[0].astype(np.int16) - first["dream"].astype(np.int16))
                row |= {"first_frame_levels": int(apart.max()), "first_frame_mean": round(float(apart.mean()), 4),
                        **{f"{key}_change": round(row[key] / first[key] - 1, 4) for key in ("gain", "flicker")}}
            first = first or {"dream": dreams[0], **row}
            rows.append(row)
    dreamer = dreamers["device"]
    return Report("frame-equality", conditions(
        device=str(dreamer.backend.device), layers=settings.layers, flow=FLOW, frames=options.frames or DEFAULT_FRAMES,
        size=f"{width}x{height}", seed=options.seed), rows)
