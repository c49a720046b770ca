"""Refuse a field that is too small for the layers, before an output is opened and PyTorch is loaded."""
from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source
    from streamdream.settings import Run


def check_field(args: argparse.Namespace, run: Run, height: int, width: int, all_octaves: bool = True) -> None:
    """Raises FieldTooSmall when frames of that size cannot be dreamed, ModelError when the weights are not here.

    Without ``all_octaves`` one octave is enough.

    A playlist or a recorded track brings layers of its own, which are checked when they come.
    """
    from streamdream import models
    from streamdream.dream import octaves
    from streamdream.dream.options import DreamOptions

    model = models.get(run.stream.model)
    model.check_weights()  # before its layers: who lacks the weights needs no list of layers
    if run.automation.playlist or getattr(args, "settings_track", None):
        return
    dream = run.dream if all_octaves else replace(run.dream, octaves=1)
    size = DreamOptions(run.stream.field_height).field_size(height, width)
    octaves.check_field(model, dream, size)


def checked_source(source: Source, args: argparse.Namespace, run: Run, all_octaves: bool = True) -> Source:
    """``source``, if its frames can be dreamed. Raises FieldTooSmall."""
    check_field(args, run, source.height, source.width, all_octaves)
    return source
