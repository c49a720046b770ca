"""Measure the dreams of several clips with several methods at equal gain; and drift, and cuts. See metrics.py,
temporal_metrics.py and residual_metrics.py for what is measured, footage.py for the clips.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamdream.dream.build import build_dreamer
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.errors import UnknownName, UsageError
from streamdream.media.resize import resize
from streamdream.settings import DreamSettings, StreamSettings

from . import LAYERS, Options, Progress, Report, clips, conditions
from .baselines import METHODS, streamdream
from .equal_gain import TOLERANCE, Clip, dream_at_gain, measure
from .footage import all_footage
from .metrics import Drift, Motion, Picture, correlation, residual, warped_correlation
from .temporal_metrics import warping_error

if TYPE_CHECKING:
    from .metrics import Residual

DEFAULT_SIZE = (240, 320)
DEFAULT_FRAMES = 32
DEFAULT_FOOTAGE = ("highway", "clouds", "world", "handheld", "water")
"""All kinds take twice as long."""
DRIFT_FROM = 300
"""First frame of the still clip for drift."""
DRIFT_WINDOW = 20
"""Frames averaged at both ends, so that the jitter of single steps does not count as drift."""
CUT_SHOT = 40
"""Frames of a shot around a cut."""
RECOVERED = 0.9
"""Share of the steady gain at which a dream has recovered from a cut."""


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each clip and method; drift and cuts are of the program's method, on the first clip."""
    height, width = options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1]
    settings = DreamSettings(layers=options.layers or LAYERS)
    dreamer = build_dreamer(StreamSettings(model=options.model, field_height=options.field_height, seed=options.seed,
                                           backend=options.backend, device=options.device, precision=options.precision))
    rows: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    for name, frames in load(options, height, width):
        clip = Clip.of(name, frames, dreamer, settings)
        rows += compare_methods(clip, dreamer, settings, options.gain, progress)
        if not extra:
            if options.drift_frames:
                progress(f"drift: {options.drift_frames} frames of a still picture")
                extra |= measure_drift(frames[0], options, dreamer, settings)
            progress("cuts")
            extra |= measure_cuts(clip, dreamer, settings)
            rows[1] |= extra
    return Report("quality", conditions(
        backend=dreamer.backend.name, precision=dreamer.backend.precision, device=str(dreamer.backend.device),
        model=options.model, layers=settings.layers, size=f"{width}x{height}",
        field="{1}x{0}".format(*dreamer.options.field_size(height, width)),
        frames=clip.first + len(clip.shown) - 1, measured_from=clip.first, equal_gain=f"within {TOLERANCE:.0%}",
        flow="Farneback", seed=options.seed), rows)


def load(options: Options, height: int, width: int) -> Iterator[tuple[str, list[Picture]]]:
    """Yield the name and the frames of each clip. Raises UsageError, or UnknownName for footage that is not here."""
    count = options.frames or DEFAULT_FRAMES
    if count < 3:
        raise UsageError(f"--frames {count}: at least 3 are needed to measure a change")
    if options.clip:
        yield Path(options.clip).name, clips.read(options.clip, count, height, width)
        return
    kinds = all_footage(options.clips)
    names = options.footage.split(",") if options.footage else [name for name in DEFAULT_FOOTAGE if name in kinds]
    for name in names:
        if name not in kinds:
            raise UnknownName("footage", name, kinds)
        yield name, kinds[name](count, height, width)


def compare_methods(clip: Clip, dreamer: Dreamer, settings: DreamSettings, target: float, progress: Progress
                    ) -> list[dict[str, Any]]:
    """Return a row for the input, and one for each method, at the gain ``target``; 0 is that of the settings.

    ``own_gain`` is what a method has with the settings as they are. Where no step gives the gain, ``gain`` says so.
    """
    rows: list[dict[str, Any]] = [{"clip": clip.name, "method": "input",
                                   "e_warp": round(warping_error(clip.shown, clip.forward_motions), 6)}]
    for name, method in METHODS.items():
        progress(f"{clip.name}, {name}: {len(clip.frames)} frames")
        dreams, found = dream_at_gain(clip, dreamer, settings, target, method)
        target = target or found.gain
        rows.append({"clip": clip.name, "method": name, "own_gain": round(found.own_gain, 3),
                     "step_size": round(found.step_size, 4), **measure(clip, dreams)})
    return rows


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


def measure_cuts(clip: Clip, dreamer: Dreamer, settings: DreamSettings) -> dict[str, Any]:
    """Measure how much of the dream crosses a hard cut: between the clip, another shot, and the clip again.

    ``cut`` is |correlation| of the two residuals at a cut ÷ the correlation of neighbouring residuals within a shot.
    ``cut_fresh`` is the same when the frame after the cut is dreamed from an empty state: the value that similar
    pictures and chance give. ``cut_recovery_frames`` is how many frames of a shot pass, with the first, until the gain
    is RECOVERED of its steady value, in the slower of the two shots.
    """
    length = min(CUT_SHOT, len(clip.frames))
    shots = [clip.frames[:length], list(clips.other_shot(length, *clip.frames[0].shape[:2])), clip.frames[-length:]]
    film = [frame for shot in shots for frame in shot]
    starts = [length, 2 * length]
    state, residuals, gains = DreamState(), [], []
    for frame in film:
        state, dream = dreamer(state, frame, settings)
        residuals.append(residual(dream, frame))
        gains.append(clip.value_of(dream) / clip.value_of(frame))
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
            "cut_recovery_frames": max(recovery_frames(gains[index:index + length]) for index in starts),
            "cuts_found": f"{state.cuts} of {len(starts)}"}


def recovery_frames(gains: Sequence[float]) -> int:
    """Return how many frames of a shot pass until the gain is RECOVERED of the mean of the last quarter."""
    steady = float(np.mean(gains[-max(1, len(gains) // 4):]))
    return next(index + 1 for index, value in enumerate(gains) if value >= RECOVERED * steady)


def max_correlation(current: Residual, previous: Residual, motion: Motion) -> float:
    """Return the larger |correlation| of a residual with the previous one, unwarped or warped by the flow."""
    return max(abs(correlation(current, previous)), abs(warped_correlation(current, previous, motion)))
