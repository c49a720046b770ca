"""Inputs as people have them: ``INPUTS`` has a row for each, which makes it and says what must hold of its render."""
from __future__ import annotations

from support.inputs import codecs, colors, sounds, stills, times
from support.inputs.row import Input

GROUPS: dict[str, list[Input]] = {
    "Codecs and containers": codecs.ROWS,
    "Pixel formats and colours": [*colors.PIXELS, *colors.TAGS, *colors.HDR, *colors.ALPHA],
    "Shapes": colors.SHAPES,
    "Rates and timestamps": [*times.RATES, *times.TIMES],
    "Sound": sounds.SOUNDS,
    "Subtitles, chapters and metadata": [*sounds.TEXTS, *sounds.METADATA],
    "Pictures": stills.ROWS,
}
INPUTS: dict[str, Input] = {row.key: row for rows in GROUPS.values() for row in rows}
