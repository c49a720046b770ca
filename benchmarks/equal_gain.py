"""Compare dreams at equal gain: a weaker dream is always the steadier one, so methods and settings are compared at step
sizes that give them the same gain.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from streamdream.ascent import objectives
from streamdream.dream.dreamer import DreamState

from .baselines import METHODS, WITHOUT_MEMORY, Method, streamdream
from .metrics import Motion, ObjectiveValue, Picture, flicker, gain, residual
from .residual_metrics import chroma_share, palette, similarity, spectrum_slope
from .temporal_metrics import flow_difference, forward_motions, warping_error

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.settings import DreamSettings

TOLERANCE = 0.02
"""Relative difference of gains that count as equal."""
MAX_TRIALS = 8
SMALLEST_STEP, LARGEST_STEP = 0.0001, 0.5
GAIN_SAMPLES = 4
"""Frames whose gain is computed, evenly chosen of those measured."""


@dataclass(frozen=True)
class Clip:
    """Frames, and what all methods share. Measured are the frames from ``first``, at least 1, on."""

    name: str
    frames: list[Picture]
    first: int
    value_of: ObjectiveValue

    @classmethod
    def of(cls, name: str, frames: list[Picture], dreamer: Dreamer, settings: DreamSettings, first: int = 0) -> Clip:
        """Prepare a clip for settings whose objective is that of ``settings``; by default its second half counts."""
        value_of = ObjectiveValue(dreamer.model, objectives.from_settings(settings, dreamer.model),
                                  dreamer.options.field_size(*frames[0].shape[:2]))
        return cls(name, frames, first or max(1, len(frames) // 2), value_of)

    @property
    def shown(self) -> list[Picture]:
        """The frames measured, and the one before them."""
        return self.frames[self.first - 1:]

    @property
    def sampled(self) -> list[int]:
        """The indices in ``shown`` of the frames whose gain is computed."""
        return sorted({round(index) for index in np.linspace(1, len(self.shown) - 1, GAIN_SAMPLES)})

    @cached_property
    def frame_values(self) -> list[float]:
        return [self.value_of(self.shown[index]) for index in self.sampled]

    @cached_property
    def motions(self) -> list[Motion]:
        return Motion.of(self.shown)

    @cached_property
    def forward_motions(self) -> list[Motion]:
        return forward_motions(self.shown)

    def dreams(self, method: Method, dreamer: Dreamer, settings: DreamSettings) -> list[Picture]:
        """Dream the clip, and return the dreams of ``shown``."""
        if method in WITHOUT_MEMORY:
            return list(method(self.shown, dreamer, settings))
        return list(method(self.frames, dreamer, settings))[self.first - 1:]

    def gain(self, dreams: Sequence[Picture]) -> float:
        return gain([dreams[index] for index in self.sampled], self.frame_values, self.value_of, 0)


@dataclass(frozen=True)
class Trial:
    """A dream of a clip, in a search for a gain."""

    step_size: float
    gain: float
    own_gain: float = 0.0
    """Of the first trial."""


def find_step_size(gain_at: Callable[[float], float], target: float, start: float, tolerance: float = TOLERANCE
                   ) -> Trial:
    """Find the step size at which ``gain_at(step size)`` is ``target``, by bracketing and interpolation.

    Returns the nearest of at most MAX_TRIALS trials: where no step size gives that gain, its own differs by more than
    ``tolerance``. ``gain_at`` should rise.
    """
    below, above = Trial(0.0, 1.0), None
    first = trial = best = Trial(start, gain_at(start))
    for _ in range(MAX_TRIALS - 1):
        if abs(trial.gain / target - 1) <= tolerance:
            break
        if trial.gain < target:
            if trial.gain < below.gain and trial.step_size > 1.5 * below.step_size:
                break  # longer steps only give noise
            below = trial
        else:
            above = trial
        step_size = _next_step_size(trial, below, above, target)
        if step_size == trial.step_size:
            break
        trial = Trial(step_size, gain_at(step_size))
        best = min(best, trial, key=lambda tried: abs(tried.gain - target))
    return replace(best, own_gain=first.gain)


def _next_step_size(last: Trial, below: Trial, above: Trial | None, target: float) -> float:
    """Gain - 1 is about proportional to the step size; between two trials, to a power of it."""
    if above is not None and below.step_size:
        low, wanted, high = np.log(np.maximum([below.gain - 1, target - 1, above.gain - 1], 0.001))
        share = np.clip((wanted - low) / max(high - low, 0.001), 0.1, 0.9)
        return float(below.step_size * (above.step_size / below.step_size) ** share)
    growth = (target - 1) / max(last.gain - 1, 0.05)
    return float(np.clip(last.step_size * np.clip(growth, 0.1, 4), SMALLEST_STEP, LARGEST_STEP))


def dream_at_gain(clip: Clip, dreamer: Dreamer, settings: DreamSettings, target: float, method: Method = streamdream
                  ) -> tuple[list[Picture], Trial]:
    """Dream a clip with the step size at which its gain is ``target``; the search starts at that of ``settings``.
    A target of 0 takes the settings as they are.

    Returns the dreams of ``clip.shown``, and the step size with the gain reached, which may be another if none fits.
    """
    last: dict[float, list[Picture]] = {}

    def gain_at(step_size: float) -> float:
        if method in WITHOUT_MEMORY:  # a search on few frames is as good, and these methods are slow
            tried = replace(settings, step_size=step_size)
            dreams = [dreamer(DreamState(index=index), clip.shown[index], tried)[1] for index in clip.sampled]
            return gain(dreams, clip.frame_values, clip.value_of, 0)
        last[step_size] = clip.dreams(method, dreamer, replace(settings, step_size=step_size))
        return clip.gain(last[step_size])

    start = settings.step_size
    found = find_step_size(gain_at, target, start) if target else Trial(start, 0.0)
    dreams = last.get(found.step_size) or clip.dreams(method, dreamer, replace(settings, step_size=found.step_size))
    reached = clip.gain(dreams)
    return dreams, Trial(found.step_size, reached, found.own_gain or reached)


def measure(clip: Clip, dreams: Sequence[Picture]) -> dict[str, float]:
    """Return all metrics of the dreams of ``clip.shown``; those of single pictures are means over the sampled ones."""
    residuals = [residual(dreams[index], clip.shown[index]) for index in clip.sampled]
    palettes = [palette(item) for item in residuals]
    return {
        "gain": round(clip.gain(dreams), 3),
        "flicker": round(flicker(dreams, clip.shown, clip.motions, 1), 4),
        "e_warp": round(warping_error(dreams, clip.forward_motions), 6),
        "t_of": round(flow_difference(dreams, clip.shown), 3),
        **{name: round(float(np.mean([item[name] for item in palettes])), 4) for name in palettes[0]},
        "chroma": round(float(np.mean([chroma_share(item) for item in residuals])), 4),
        "slope": round(float(np.mean([spectrum_slope(item) for item in residuals])), 2),
        "rms": round(float(np.sqrt(np.mean([np.mean(np.square(item)) for item in residuals]))), 2),
        "ssim": round(float(np.mean([similarity(dreams[index], clip.shown[index]) for index in clip.sampled])), 4),
    }


def compare(clip: Clip, dreamer: Dreamer, variants: dict[str, DreamSettings], target: float = 0.0,
            method: str = "streamdream") -> dict[str, dict[str, float]]:
    """Measure settings with the same objective at equal gain; 0 takes the gain of the first as it is.

    Returns name -> ``measure`` of it, with the step size found.
    """
    results = {}
    for name, settings in variants.items():
        dreams, found = dream_at_gain(clip, dreamer, settings, target, METHODS[method])
        target = target or found.gain
        results[name] = {"step_size": round(found.step_size, 5), **measure(clip, dreams)}
    return results
