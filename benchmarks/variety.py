"""How different looks are from each other, as a number: the distance between descriptions of what each adds to the same
frames. Run as ``bench looks``.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream import settings
from streamdream.dream.build import build_dreamer
from streamdream.errors import StreamdreamError, UsageError

from . import Options, Progress, Report, conditions
from .baselines import streamdream
from .footage import all_footage
from .metrics import Residual, residual
from .residual_metrics import palette, power_spectrum

BANDS = tuple(0.5 / 2**n for n in range(5, -1, -1))
"""Edges of the five bands of frequency, cycles per pixel: octaves, from 64 pixels a wave to 2."""
ORIENTATIONS = 8
LOOK_PREFIX = "look-"
DEFAULT_SIZE = (240, 320)
DEFAULT_FRAMES = 8
KINDS = 6


@dataclass(frozen=True)
class Variety:
    """Distances between looks, each about 0 for the same picture, and at most about 2.5."""

    mean: float
    minimum: float
    nearest: dict[str, tuple[str, float]]
    """Each look -> the look nearest to it, and their distance."""


def describe(residuals: Sequence[Residual]) -> NDArray[np.float64]:
    """Describe a look by what it adds to some frames: 17 numbers, their mean over the frames.

    The shares of energy in five BANDS of frequency (sum 1), the shares in eight ORIENTATIONS of waves (sum 1), the
    shares on three axes of natural colours (sum 1), and the strength: RMS in units of 0..1, times 4. Shares need no
    further scale; a strength of 64 grey levels counts as one.
    """
    result: NDArray[np.float64] = np.mean([_describe_one(item) for item in residuals], axis=0)
    return result


def variety(residuals: Mapping[str, Sequence[Residual]]) -> Variety:
    """Compare looks, at least two, by the residuals [H, W, 3] that each adds to the same frames.

    A distance is Euclidean, between two descriptions.
    """
    descriptions = {name: describe(items) for name, items in residuals.items()}
    distances = {(a, b): float(np.linalg.norm(descriptions[a] - descriptions[b]))
                 for a, b in combinations(descriptions, 2)}
    nearest = {}
    for name in descriptions:
        distance, pair = min((distance, pair) for pair, distance in distances.items() if name in pair)
        nearest[name] = (pair[1] if pair[0] == name else pair[0], distance)
    return Variety(float(np.mean(list(distances.values()))), min(distances.values()), nearest)


def run(options: Options, progress: Progress) -> Report:
    """Dream the same clips with every look, and return a row for each: the nearest other look, and how far it is."""
    height, width = options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1]
    count = options.frames or DEFAULT_FRAMES
    kinds = dict(list(all_footage(options.clips).items())[-KINDS:])  # those that every machine has
    footage = {name: kind(count, height, width) for name, kind in kinds.items()}
    names = [name.strip() for name in options.presets.split(",") if name.strip()] or [
        name for name in settings.preset_names() if name.startswith(LOOK_PREFIX)]
    if len(names) < 2:
        raise UsageError("bench looks compares looks: name at least two with --presets")
    residuals: dict[str, list[Residual]] = {}
    for name in names:
        progress(f"{name}: {len(footage)} clips of {count} frames")
        try:
            residuals[name] = dream_look(name, list(footage.values()), options)
        except StreamdreamError as error:
            progress(f"{name} is left out: {error}")
    found = variety(residuals)
    rows: list[dict[str, Any]] = [
        {"look": name, "nearest": near, "distance": round(distance, 3),
         **_named(describe(residuals[name]))} for name, (near, distance) in found.nearest.items()]
    return Report("looks", conditions(
        mean_distance=round(found.mean, 4), least_distance=round(found.minimum, 4), looks=len(rows),
        clips=", ".join(footage), size=f"{width}x{height}", frames=count, measured="the last frame",
        seed=options.seed), rows)


def dream_look(preset: str, clips: Sequence[Sequence[Any]], options: Options) -> list[Residual]:
    """Dream each clip with a preset, from nothing, and return what is added to its last frame."""
    chosen = settings.resolve({}, {}, preset)
    stream = chosen.stream
    dreamer = build_dreamer(settings.StreamSettings(
        model=stream.model, field_height=stream.field_height, seed=options.seed, backend=options.backend,
        device=options.device, precision=options.precision))
    return [residual(list(streamdream(frames, dreamer, chosen.dream))[-1], frames[-1]) for frames in clips]


def _describe_one(item: Residual) -> NDArray[np.float64]:
    power, frequency, angle = power_spectrum(item)
    inside = (frequency >= BANDS[0]) & (frequency < BANDS[-1])
    bands = np.array([power[(frequency >= low) & (frequency < high)].sum() for low, high in pairwise(BANDS)])
    sector = np.rint(angle / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    orientations = np.bincount(sector[inside], power[inside], ORIENTATIONS)
    total = power[inside].sum() or 1.0
    strength = 4 * float(np.sqrt(np.mean(np.square(item)))) / 255
    return np.concatenate([bands / total, orientations / total, [*palette(item).values(), strength]])


def _named(description: NDArray[np.float64]) -> dict[str, Any]:
    values = description.round(3).tolist()
    return {"bands": " ".join(f"{value:.2f}" for value in values[:5]),
            "orientations": " ".join(f"{value:.2f}" for value in values[5:13]),
            "colors": " ".join(f"{value:.2f}" for value in values[13:16]), "strength": values[16]}
