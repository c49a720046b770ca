"""The sizes at which a picture is dreamed, and which of them a network has room for. Loads no PyTorch."""
from __future__ import annotations

from typing import TYPE_CHECKING

from streamdream.ascent import objectives
from streamdream.errors import FieldTooSmall

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

SIZE_MULTIPLE = 16
"""Pixels; the coarsest stride of most layers that are dreamed."""


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of each octave, coarsest first; the last is the picture's own.

    The others are multiples of ``SIZE_MULTIPLE`` where they are large enough for that not to show: an engine is built
    for one size, and so pictures of nearly the same size, or scale, share most of theirs.
    """
    coarse = [(_round_to_multiple(height, scale**n), _round_to_multiple(width, scale**n))
              for n in reversed(range(1, octaves))]
    return [*coarse, (height, width)]


def _round_to_multiple(length: int, scale: float) -> int:
    if length / scale < 6 * SIZE_MULTIPLE:  # half a multiple would be more than a twelfth
        return max(1, round(length / scale))
    return SIZE_MULTIPLE * min(round(length / scale / SIZE_MULTIPLE), length // SIZE_MULTIPLE)


def min_side(model: Model, objective: Objective) -> int:
    """Pixels that the shorter side of a picture must have for all taps of the objective."""
    taps = model.taps()
    return max((taps[name].min_size for name in objective.taps), default=1)


def fitting_octaves(model: Model, settings: DreamSettings, size: tuple[int, int]) -> int:
    """How many octaves a field of that (height, width) has room for, up to ``settings.octaves``; 0 if not even one.

    Raises UnknownName or SettingsError when the model lacks what the settings ask for.
    """
    smallest = min_side(model, objectives.from_settings(settings, model))
    return next((octaves for octaves in range(settings.octaves, 0, -1)
                 if min(map(min, octave_sizes(*size, octaves, settings.octave_scale))) >= smallest), 0)


def check_field(model: Model, settings: DreamSettings, size: tuple[int, int]) -> None:
    """Raises FieldTooSmall when a field of that (height, width) has no room for all octaves, before PyTorch is loaded.

    Raises UnknownName or SettingsError when the model lacks what the settings ask for.
    """
    objective = objectives.from_settings(settings, model)
    height, width = octave_sizes(*size, settings.octaves, settings.octave_scale)[0]
    if min(height, width) < min_side(model, objective):
        raise FieldTooSmall(f"a {width}x{height} picture is too small for {', '.join(objective.taps)}: it needs "
                            f"{min_side(model, objective)} pixels; use fewer octaves, a larger --field-height or a "
                            "lower layer")
