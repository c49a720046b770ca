"""Which octaves a field has room for: a layer needs a picture of a certain size, and each octave is a smaller one."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.settings import DreamSettings


def field_size(lines: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a field of so many lines for pictures of that shape."""
    return lines, max(2, 2 * round(width * lines / height / 2))


def fitting_octaves(model: Model, dream: DreamSettings, size: tuple[int, int]) -> int:
    """How many of the octaves of ``dream`` a field of that (height, width) has room for; 0 if not even one.

    Raises UnknownName or SettingsError for layers that the model does not have.
    """
    from streamdream import objectives
    from streamdream.dream import octave_sizes

    taps = model.taps()
    least = max((taps[name].min_size for name in objectives.from_settings(dream, model).taps), default=1)
    for octaves in range(dream.octaves, 0, -1):
        if min(map(min, octave_sizes(*size, octaves, dream.octave_scale))) >= least:
            return octaves
    return 0
