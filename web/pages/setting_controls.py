"""Controls made of the settings' metadata: Gradio components for a tab, or data for the live page."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamdream import settings_fields
from streamdream.errors import SettingsError
from streamdream.settings import DreamSettings, Group

from ..core import limits

if TYPE_CHECKING:
    import gradio as gr

BASIC = ("layers", "strength", "steps", "step_size", "octaves", "keep", "color", "smooth", "original_colors")
"""Fields that are always shown; the others are under "More"."""
LOGARITHMIC = 200
"""A range whose ends differ by a larger factor gets fine steps at its low end."""
ROUND_STEPS = (1, 2, 5)


def fields(group: Group = DreamSettings, without: Collection[str] = ()) -> list[dataclasses.Field[Any]]:
    """Return the fields that a visitor may set: all but files, the basic ones first."""
    items = [item for item in dataclasses.fields(group) if item.metadata["kind"] != "picture"
             and item.name not in without]
    return sorted(items, key=lambda item: BASIC.index(item.name) if item.name in BASIC else len(BASIC))


def label(item: dataclasses.Field[Any]) -> str:
    """``step_size`` -> ``Step size``."""
    return {"tv": "Total variation", "l2": "L2 penalty", "color": "Colour", "original_colors": "Original colours",
            }.get(item.name, item.name.replace("_", " ").capitalize())


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
    """Describe each control: ``name, label, help, kind, basic, default``, and ``low, high, step, unit`` or ``choices``.

    ``kind`` is ``range``, ``choice``, ``switch`` or ``text``; ``highest`` lowers the upper end of some.
    """
    rows = []
    for item in fields(group, without):
        row: dict[str, Any] = {"name": item.name, "label": label(item), "help": item.metadata["help"],
                               "basic": item.name in BASIC, "default": item.default, "kind": kind(item)}
        if row["kind"] == "range":
            row |= {"low": item.metadata["low"], "high": (highest or {}).get(item.name, item.metadata["high"]),
                    "step": step(item), "unit": item.metadata["unit"], "whole": isinstance(item.default, int)}
        if row["kind"] == "text":
            row["length"] = limits.MAX_SETTING_CHARACTERS
        if row["kind"] == "choice":
            row["choices"] = settings_fields.choices(item)
        rows.append(row)
    return rows


def kind(item: dataclasses.Field[Any]) -> str:
    """Return the kind of control of a field."""
    if isinstance(item.default, bool):
        return "switch"
    if settings_fields.choices(item):
        return "choice"
    return "range" if item.metadata["high"] is not None else "text"


@dataclasses.dataclass(frozen=True)
class Form:
    """Components in the order of their names: ``inputs`` for an event, whose values ``read`` takes back."""

    names: tuple[str, ...]
    inputs: list[gr.components.Component]
    group: Group = DreamSettings

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the components' values by field, each of its field's type. Raises SettingsError, UnknownName."""
        known = {item.name: item for item in dataclasses.fields(self.group)}
        for name, value in zip(self.names, values, strict=True):
            if len(str(value)) > limits.MAX_SETTING_CHARACTERS:
                raise SettingsError(f"{name} is longer than {limits.MAX_SETTING_CHARACTERS} characters")
        return {name: _typed(known[name], value) for name, value in zip(self.names, values, strict=True)}

    def show(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the updates that set these values, for an event whose outputs are ``inputs``."""
        import gradio as gr

        return [gr.update(value=values[name]) if name in values else gr.update() for name in self.names]


def build(group: Group = DreamSettings, values: Mapping[str, Any] | None = None, without: Collection[str] = (),
          choices: Mapping[str, Sequence[str]] | None = None, highest: Mapping[str, float] | None = None,
          more: str = "More") -> Form:
    """Make the components of a group of settings, within the Gradio context of the caller.

    ``values`` are their start values; ``choices`` make a text a drop-down (layers, say) where anything may be typed.
    """
    import gradio as gr

    rows = describe(group, without, highest)
    components: dict[str, Any] = {}
    for row in rows:
        if row["basic"]:
            components[row["name"]] = _component(row, values or {}, choices or {})
    rest = [row for row in rows if not row["basic"]]
    if rest:
        with gr.Accordion(more, open=False):
            for row in rest:
                components[row["name"]] = _component(row, values or {}, choices or {})
    return Form(tuple(components), list(components.values()), group)


def _component(row: Mapping[str, Any], values: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> Any:
    import gradio as gr

    name, value = row["name"], values.get(row["name"], row["default"])
    common = {"label": row["label"], "info": row["help"] + (f" ({row['unit']})" if row.get("unit") else ""),
              "value": value, "elem_id": None}
    if row["kind"] == "switch":
        return gr.Checkbox(**common)
    if row["kind"] == "choice" or name in choices:
        return gr.Dropdown(choices=list(choices.get(name, row.get("choices", ()))), allow_custom_value=name in choices,
                           **common)
    if row["kind"] == "range":
        return gr.Slider(row["low"], row["high"], step=row["step"], **common)
    return gr.Textbox(max_lines=1, max_length=limits.MAX_SETTING_CHARACTERS, **common)


def _typed(item: dataclasses.Field[Any], value: Any) -> Any:
    if isinstance(item.default, bool):
        return bool(value)
    return settings_fields.convert(item, str(value or "") if isinstance(item.default, str) else str(value))
