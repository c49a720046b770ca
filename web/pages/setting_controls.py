"""The settings as controls for the page: described from their metadata, named in plain words, and read back."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from streamdream import settings_fields
from streamdream.errors import SettingsError
from streamdream.settings import DreamSettings, Group

from ..core import limits, strings

ORDER = ("layers", "strength", "keep", "octaves", "octave_scale", "steps", "step_size", "color", "palette",
         "original_colors", "smooth")
"""Fields that come first, as people look for them."""
LOGARITHMIC = 200
"""A range whose ends differ by a larger factor gets fine steps at its low end."""
ROUND_STEPS = (1, 2, 5)


def fields(group: Group = DreamSettings, without: Collection[str] = ()) -> list[dataclasses.Field[Any]]:
    """Return the fields that a visitor may set: all but files, in ORDER."""
    items = [item for item in dataclasses.fields(group) if item.metadata["kind"] != "picture"
             and item.name not in without]
    return sorted(items, key=lambda item: ORDER.index(item.name) if item.name in ORDER else len(ORDER))


def step(item: dataclasses.Field[Any]) -> float:
    """Return the step of a slider: 1 for integers, else a round fraction of the range."""
    low, high = item.metadata["low"], item.metadata["high"]
    if isinstance(item.default, int):
        return 1
    fine = (high - low) / 200
    if low > 0 and high / low > LOGARITHMIC:
        fine = low
    power = 10.0 ** math.floor(math.log10(fine))
    return float(f"{max(factor * power for factor in ROUND_STEPS if factor * power <= fine * 1.0001):.3g}")


def describe(group: Group = DreamSettings, without: Collection[str] = (),
             highest: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """Describe each control: ``name, label, help, technical, kind, default``, and ``low, high, step, unit`` or
    ``choices``.

    ``label`` and ``help`` say what one sees, ``technical`` is the name for commands and recipes, with the range.
    ``kind`` is ``range``, ``choice``, ``switch`` or ``text``; ``highest`` lowers the upper end of some.
    """
    rows = []
    words = strings.section("settings")
    for item in fields(group, without):
        row: dict[str, Any] = {"name": item.name, **words[item.name], "default": item.default, "kind": kind(item)}
        if row["kind"] == "range":
            row |= {"low": item.metadata["low"], "high": (highest or {}).get(item.name, item.metadata["high"]),
                    "step": step(item), "unit": item.metadata["unit"], "whole": isinstance(item.default, int)}
        if row["kind"] == "text":
            row["length"] = limits.MAX_SETTING_CHARACTERS
        if row["kind"] == "choice":
            row["choices"] = settings_fields.choices(item)
        row["technical"] = f"{item.name}: {_legal(row)}" if _legal(row) else item.name
        rows.append(row)
    return rows


def _legal(row: Mapping[str, Any]) -> str:
    if row["kind"] == "range":
        return f"{row['low']:.10g}..{row['high']:.10g} {row['unit']}".rstrip()
    return ", ".join(row.get("choices", ()))


def kind(item: dataclasses.Field[Any]) -> str:
    """Return the kind of control of a field."""
    if isinstance(item.default, bool):
        return "switch"
    if settings_fields.choices(item):
        return "choice"
    return "range" if item.metadata["high"] is not None else "text"


def read(group: Group, values: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return those of ``values`` that are fields of the group, each of its field's type, checked.

    Raises SettingsError or UnknownName.
    """
    return {item.name: _typed(item, values[item.name]) for item in fields(group, without) if item.name in values}


def _typed(item: dataclasses.Field[Any], value: Any) -> Any:
    if not isinstance(value, str | int | float) or len(str(value)) > limits.MAX_SETTING_CHARACTERS:
        raise SettingsError(f"{item.name} is no number, and no text of at most {limits.MAX_SETTING_CHARACTERS} "
                            "characters")
    return settings_fields.convert(item, value)
