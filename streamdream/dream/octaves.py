"""Compute the sizes of the octaves and check them against the minimum input size of a network. Loads no PyTorch."""
from __future__ import annotations

from typing import TYPE_CHECKING

from streamdream.ascent import objectives
from streamdream.errors import FieldTooSmall

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

SIZE_MULTIPLE = 16
"""Pixels; the largest stride of most layers that are dreamed."""


def octave_sizes(height: int, width: int, octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return the (height, width) of each octave, coarsest first; the last is the size of the picture.

    Octaves that are large enough are rounded to multiples of ``SIZE_MULTIPLE``: an engine is built for one size, so
    pictures or scales that differ little can share engines.
    """
    coarse = [(_round_to_multiple(height, scale**n), _round_to_multiple(width, scale**n))
              for n in reversed(range(1, octaves))]
    return [*coarse, (height, width)]


def _round_to_multiple(length: int, scale: float) -> int:
    if length / scale < 6 * SIZE_MULTIPLE:  # rounding would change the size by more than a twelfth
        return max(1, round(length / scale))
    return SIZE_MULTIPLE * min(round(length / scale / SIZE_MULTIPLE), length // SIZE_MULTIPLE)


def min_side(model: Model, objective: Objective) -> int:
    """Return the minimum length of a picture's shorter side, in pixels, for all taps of the objective."""
    taps = model.taps()
    return max((taps[name].min_size for name in objective.taps), default=1)


def fitting_octaves(model: Model, settings: DreamSettings, size: tuple[int, int]) -> int:
    """Return how many octaves fit a field of ``size`` (height, width), at most ``settings.octaves``; may be 0.

    Raises UnknownName or SettingsError when the model lacks what the settings request.
    """
    shortest = min_side(model, objectives.from_settings(settings, model))
    return next((octaves for octaves in range(settings.octaves, 0, -1)
                 if min(map(min, octave_sizes(*size, octaves, settings.octave_scale))) >= shortest), 0)


def check_field(model: Model, settings: DreamSettings, size: tuple[int, int]) -> None:
    """Check that all octaves fit a field of ``size`` (height, width), before PyTorch is loaded.

    Raises FieldTooSmall, or UnknownName or SettingsError when the model lacks what the settings request.
    """
    objective = objectives.from_settings(settings, model)
    height, width = octave_sizes(*size, settings.octaves, settings.octave_scale)[0]
    if min(height, width) < min_side(model, objective):
        raise FieldTooSmall(f"a {width}x{height} picture is too small for {', '.join(objective.taps)}: it needs "
                            f"{min_side(model, objective)} pixels; use fewer octaves, a larger --field-height or a "
                            "lower layer")
