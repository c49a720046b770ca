"""Refuse a field that is too small for the layers before an output is opened and PyTorch is loaded."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source
    from streamdream.settings import Run


def check_field(run: Run, height: int, width: int, all_octaves: bool = True, has_track: bool = False) -> None:
    """Raise FieldTooSmall if the field of such frames is too small, ModelError if the weights are not installed.

    Check the largest octave only, without ``all_octaves``. Do not check the field for a playlist or a settings track,
    whose layers are checked in the run.
    """
    from streamdream import models
    from streamdream.dream import octaves
    from streamdream.dream.options import DreamOptions

    model = models.get(run.stream.model)
    model.check_weights()  # before the layers: missing weights are the first problem to report
    if run.automation.playlist or has_track:
        return
    dream = run.dream if all_octaves else replace(run.dream, octaves=1)
    size = DreamOptions(run.stream.field_height).field_size(height, width)
    octaves.check_field(model, dream, size)


def checked_source(source: Source, run: Run, all_octaves: bool = True, has_track: bool = False) -> Source:
    """Return ``source`` if its frames can be dreamed. Raises as ``check_field``."""
    check_field(run, source.height, source.width, all_octaves, has_track)
    return source
