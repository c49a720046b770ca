"""What each channel of a network dreams: sheets of small pictures, and the names of channels. Imports no PyTorch.

A sheet is one WebP picture of a layer, a square cell for each channel, in rows. The sheets and names of the embedded
network are in the package; sheets of other networks are made by ``dream.channel_atlas`` and kept in the cache folder.
"""
from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from streamdream.models import registry
from streamdream.system.cache_dir import cache_dir

SHIPPED = Path(__file__).parents[1] / "channels"
"""A folder for each network whose sheets are in the package."""
NAMES_FILE = "names.toml"
SUFFIX = ".webp"
CELL = 80
"""Width and height of a cell in pixels."""
COLUMNS = 32
"""Cells in a row."""
MAX_ENDING = 2
"""Letters that a word may have more than the one that is searched: "feathered", but not "rosettes" for "rose"."""
Channel = tuple[str, int]
"""(tap, channel)"""


@dataclass(frozen=True)
class Sheet:
    """The picture of a layer: ``count`` cells of ``cell`` x ``cell`` pixels, ``columns`` in a row, channel 0 first."""

    path: Path
    columns: int
    cell: int
    count: int

    def position(self, channel: int) -> tuple[int, int]:
        """The left and top edge of that channel's cell, in pixels."""
        return channel % self.columns * self.cell, channel // self.columns * self.cell


def sheet(model_name: str, tap: str) -> Sheet | None:
    """The sheet of that layer: the shipped one, else one made here, else None. Raises UnknownName."""
    model = registry.get(model_name)
    tap = model.resolve_tap(tap)
    for path in (SHIPPED / model_name / file_name(tap), made_path(model_name, tap)):
        if path.is_file():
            return Sheet(path, COLUMNS, CELL, model.taps()[tap].channels)
    return None


def made_path(model_name: str, tap: str) -> Path:
    """Where a sheet that is made on this machine is kept. It need not exist."""
    return cache_dir("channels") / model_name / file_name(tap)


def file_name(tap: str) -> str:
    return tap.replace("/", "_") + SUFFIX


@cache
def names(model_name: str) -> Mapping[Channel, str]:
    """What people see in a channel, in a few words, by (tap, channel); empty for networks that nobody has looked at."""
    path = SHIPPED / model_name / NAMES_FILE
    if not path.is_file():
        return {}
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {(tap, int(channel)): words for tap, row in table.items() for channel, words in row.items()}


def search(model_name: str, text: str) -> list[tuple[str, int, str]]:
    """(tap, channel, words) of the channels whose names have every word of ``text``, lowest layer first.

    A word matches its plural and words with a short ending: "feather" finds "feathers" and "feathered". All named
    channels for an empty text.
    """
    wanted = _split(text)
    return [(tap, channel, words) for (tap, channel), words in names(model_name).items()
            if all(any(_matches(word, one) for one in _split(words)) for word in wanted)]


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _matches(wanted: str, word: str) -> bool:
    return _stem(word) == _stem(wanted) or (word.startswith(wanted) and len(word) - len(wanted) <= MAX_ENDING)


def _stem(word: str) -> str:
    """A word without its plural: "leaves" and "leaf" -> "lea", "berries" and "berry" -> "berr"."""
    for ending in ("ves", "ies", "es", "s", "fe", "ve", "f", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[:-len(ending)]
    return word
