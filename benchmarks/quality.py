"""Measure flicker, gain, drift and cuts of the dream of a clip, and compare with other methods. See metrics.py."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamdream.ascent import objectives
from streamdream.dream.build import build_dreamer
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.media.resize import resize
from streamdream.media.sample_files import CLIP, sample_file
from streamdream.settings import DreamSettings, StreamSettings

from . import Options, Progress, Report, clips, conditions
from .baselines import METHODS, Method, streamdream
from .metrics import Drift, Motion, ObjectiveValue, Picture, correlation, flicker, gain, residual, warped_correlation

if TYPE_CHECKING:
    from .metrics import Residual

DEFAULT_SIZE = (240, 320)
DEFAULT_FRAMES = 120
FLICKER_FROM, GAIN_FROM = 10, 30
"""First frame for flicker and for gain: the dream needs some frames to reach its steady state."""
DRIFT_FROM = 300
"""First frame of the still clip for drift."""
DRIFT_WINDOW = 20
"""Frames averaged at both ends, so that the jitter of single steps does not count as drift."""
CUT_SHOT = 24
"""Frames of a shot around a cut."""


@dataclass(frozen=True)
class Footage:
    """A clip, with the values that all methods share."""

    name: str
    frames: list[Picture]
    value_of: ObjectiveValue

    @cached_property
    def motions(self) -> list[Motion]:
        return Motion.of(self.frames)

    @cached_property
    def frame_values(self) -> list[float]:
        return [self.value_of(frame) for frame in self.frames]


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each method; the baselines have only flicker and gain."""
    height, width = options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1]
    settings = DreamSettings(layers=options.layers or DreamSettings.layers)
    dreamer = build_dreamer(StreamSettings(model=options.model, field_height=options.field_height, seed=options.seed,
                                           backend=options.backend, device=options.device, precision=options.precision))
    footage = load(options, height, width, dreamer, settings)
    rows = []
    for name, method in METHODS.items():
        progress(f"{name}: {len(footage.frames)} frames")
        rows.append({"clip": footage.name, "method": name, **flicker_and_gain(footage, method, dreamer, settings),
                     "drift": None, "cut": None})
    if options.drift_frames:
        progress(f"drift: {options.drift_frames} frames of a still picture")
        rows[0] |= measure_drift(footage.frames[0], options, dreamer, settings)
    progress("cut")
    rows[0] |= measure_cuts(footage.frames, dreamer, settings)
    return Report("quality", conditions(
        backend=dreamer.backend.name, precision=dreamer.backend.precision, device=str(dreamer.backend.device),
        model=options.model, layers=settings.layers, size=f"{width}x{height}", frames=len(footage.frames),
        flicker_from=min(FLICKER_FROM, len(footage.frames) // 2), gain_from=min(GAIN_FROM, len(footage.frames) // 2),
        seed=options.seed), rows)


def load(options: Options, height: int, width: int, dreamer: Dreamer, settings: DreamSettings) -> Footage:
    path = options.clip or str(sample_file(CLIP))
    frames = clips.read(path, options.frames or DEFAULT_FRAMES, height, width)
    value_of = ObjectiveValue(dreamer.model, objectives.from_settings(settings, dreamer.model),
                              dreamer.options.field_size(height, width))
    return Footage(Path(path).name, frames, value_of)


def flicker_and_gain(footage: Footage, method: Method, dreamer: Dreamer, settings: DreamSettings) -> dict[str, float]:
    """Dream the clip with one method and return its flicker and gain."""
    dreams = list(method(footage.frames, dreamer, settings))
    half = len(dreams) // 2  # the first frame to use of a very short clip
    return {
        "flicker": round(flicker(dreams, footage.frames, footage.motions, max(1, min(FLICKER_FROM, half))), 4),
        "gain": round(gain(dreams, footage.frame_values, footage.value_of, min(GAIN_FROM, half)), 3),
    }


def measure_drift(picture: Picture, options: Options, dreamer: Dreamer, settings: DreamSettings) -> dict[str, Any]:
    """Return the drift of a clip that repeats a picture ``drift_frames`` times, from frame DRIFT_FROM to its end.

    Of a short clip, from the end of its first third.
    """
    picture = resize(picture, options.drift_height, options.drift_height * picture.shape[1] // picture.shape[0])
    end = options.drift_frames
    begin = min(DRIFT_FROM, end // 3)
    window = max(1, min(DRIFT_WINDOW, begin))
    dreams = streamdream([picture] * end, dreamer, settings)
    drift = Drift.of((residual(dream, picture) for dream in dreams), begin, window)
    return {"drift": round(drift.largest, 5), "drift_luma": round(drift.luma, 5),
            "drift_chroma": round(drift.chroma, 5), "drift_noise": round(drift.noise, 5),
            "drift_size": f"{picture.shape[1]}x{picture.shape[0]}", "drift_span": f"{begin}..{end} by {window}"}


def measure_cuts(frames: list[Picture], dreamer: Dreamer, settings: DreamSettings) -> dict[str, Any]:
    """Measure how much of the dream crosses a hard cut: between the clip, another shot, and the clip again.

    ``cut`` is |correlation| of the two residuals at a cut ÷ the correlation of neighbouring residuals within a shot.
    ``cut_fresh`` is the same when the frame after the cut is dreamed from an empty state: the value that similar
    pictures and chance give.
    """
    length = min(CUT_SHOT, len(frames))
    shots = [frames[:length], list(clips.other_shot(length, *frames[0].shape[:2])), frames[-length:]]
    film = [frame for shot in shots for frame in shot]
    starts = [length, 2 * length]
    state, residuals = DreamState(), []
    for frame in film:
        state, dream = dreamer(state, frame, settings)
        residuals.append(residual(dream, frame))
    motions = Motion.of(film)
    within = [warped_correlation(residuals[index], residuals[index - 1], motions[index - 1])
              for index in range(1, len(film)) if index not in starts]
    across = [max_correlation(residuals[index], residuals[index - 1], motions[index - 1]) for index in starts]
    fresh = {index: residual(dreamer(DreamState(index=index), film[index], settings)[1], film[index])
             for index in starts}
    across_fresh = [max_correlation(fresh[index], residuals[index - 1], motions[index - 1]) for index in starts]
    within_shot = float(np.mean(within))
    return {"cut": round(float(np.mean(across)) / within_shot, 4),
            "cut_fresh": round(float(np.mean(across_fresh)) / within_shot, 4),
            "cuts_found": f"{state.cuts} of {len(starts)}"}


def max_correlation(current: Residual, previous: Residual, motion: Motion) -> float:
    """Return the larger |correlation| of a residual with the previous one, unwarped or warped by the flow."""
    return max(abs(correlation(current, previous)), abs(warped_correlation(current, previous, motion)))
