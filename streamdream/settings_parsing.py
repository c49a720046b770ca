"""Parsers for the text of settings."""
from __future__ import annotations

import functools
import math
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from streamdream.errors import SettingsError


class LayerWeight(NamedTuple):
    """One part of ``--layers``: ``name[1,2]:weight``."""

    name: str
    weight: float
    channels: tuple[int, ...] = ()
    """Empty for all."""


LayerWeights = tuple[LayerWeight, ...]
MIN_MEMORY = "64M"
"""Less memory does not suffice for one step."""
MAX_TOML_BYTES = 1 << 16
"""Of a preset or recipe: many times what all settings take."""
BETWEEN_LAYERS = re.compile(r",(?![^\[\]]*\])")
LAYER = re.compile(r"([^\[\]:]+)(?:\[([^\[\]]+)\])?(?::(.*))?")
MAX_DOTS = 1000
"""In a line of TOML: the time that tomllib takes for a key grows with their square, to 9 s for 20,000."""


@functools.cache
def toml_names(folder: Path) -> tuple[str, ...]:
    """The names of the TOML files of a folder of the package, read once: the page asks 550 times for its presets."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML that a stranger may have written. Raises ValueError, also where tomllib would take too long."""
    if len(data) > MAX_TOML_BYTES:
        raise ValueError(f"it is longer than {MAX_TOML_BYTES} bytes")
    text = data.decode("utf-8")
    if max((line.count(".") for line in text.splitlines()), default=0) > MAX_DOTS:
        raise ValueError("it has a key of too many parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def parse_seconds(text: str) -> float:
    """Parse ``90``, ``90s``, ``1:30`` or ``0:01:30.5``. Raises ValueError."""
    parts = [float(part) for part in text.strip().removesuffix("s").split(":")]
    if len(parts) > 3 or any(part < 0 or math.isnan(part) for part in parts):
        raise ValueError(text)
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def parse_memory(text: str) -> int:
    """Parse ``500M``, ``2G``, ``1.5GiB``, ``2GB`` or a number of bytes to bytes; ``auto`` is 0. Raises ValueError.

    As in the GNU tools, K, M, G, T and KiB, ... are powers of 1024, KB, ... powers of 1000.
    """
    if text.strip().lower() == "auto":
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([KMGT])(I?B)?)?", text.strip().upper(), re.ASCII)
    if match is None:
        raise ValueError(text)
    number, letter, end = match.groups()
    return int(float(number) * (1000 if end == "B" else 1024) ** (" KMGT".index(letter) if letter else 0))


def check_memory(text: str) -> str:
    """Return ``text`` if it is ``auto`` or at least ``MIN_MEMORY``. Raises ValueError."""
    if text.strip().lower() != "auto" and parse_memory(text) < parse_memory(MIN_MEMORY):
        raise ValueError(text)
    return text


def check_size(text: str) -> str:
    """Return ``text`` if it is empty or ``WIDTHxHEIGHT``. Raises ValueError."""
    if text and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text, re.ASCII):
        raise ValueError(text)
    return text


def parse_switch(text: str) -> bool:
    """Parse ``true``, ``yes``, ``on``, ``1`` and their opposites. Raises ValueError."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


def parse_layers(text: str, flag: str = "--layers") -> LayerWeights:
    """Parse ``mixed3:1,mixed5[33,220]:0.5``; a missing weight is 1. Raises SettingsError."""
    parts = []
    for part in BETWEEN_LAYERS.split(text):
        match = LAYER.fullmatch(part.strip())
        if match is None:
            raise SettingsError(f"{flag} is {text!r}, but must be layers such as 'mixed3:1,mixed5:0.5', with channels "
                                "as 'mixed5[33,220]:1'")
        name, channels, weight = match[1].strip(), match[2], match[3]
        try:
            number = float(weight or 1)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SettingsError(f"{flag}: the weight of {name} is {weight!r}, but must be a number")
        parts.append(LayerWeight(name, number, parse_channels(channels or "", f"{flag} {part.strip()}")))
    if len({(part.name.replace("/", "_"), part.channels) for part in parts}) < len(parts):
        raise SettingsError(f"{flag} {text!r} names a layer twice")
    if not any(part.weight for part in parts):
        raise SettingsError(f"{flag} {text!r} has no weight other than 0")
    return tuple(parts)


def format_layers(layers: LayerWeights) -> str:
    """Write layers as ``parse_layers`` reads them."""
    def one(layer: LayerWeight) -> str:
        channels = f"[{','.join(map(str, layer.channels))}]" if layer.channels else ""
        return f"{layer.name}{channels}:{layer.weight:.6g}"

    return ",".join(map(one, layers))


def parse_channels(text: str, flag: str = "--channel") -> tuple[int, ...]:
    """Parse ``3,17`` to (3, 17). Raises SettingsError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise SettingsError(f"{flag} is {text!r}, but must be whole numbers, such as '3,17'; streamdream channels WORD "
                            "finds them by name") from None
