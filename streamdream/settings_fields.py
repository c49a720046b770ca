"""One setting: declare it as a dataclass field, describe it, parse its text and check its value."""
from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from typing import Any

from streamdream.errors import SettingsError, UnknownName
from streamdream.settings_parsing import MIN_MEMORY, check_memory, check_size, parse_seconds, parse_switch

MAX_INTEGER = 2**53
"""A float holds larger ones inexactly."""
FILE_OPTION = re.compile(r"stats|csv|(?<!pro)file|dump|save|load|reuse|recon|rpu|info|table|log|list|clbin|map|[/\\]",
                         re.IGNORECASE)
"""In the options of encoders that read or write files, such as ``stats`` of libx264, ``csv`` of libx265."""


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, unit: str = "",
           choices: str = "", flag: str = "", kind: str = "") -> Any:
    """Return a dataclass field with its metadata.

    ``choices`` names the registry of legal values as ``module:NAME`` (a dict), which is imported when needed.
    ``flag`` overrides ``--field-name``. ``kind`` is one of

    - ``time``: ``90``, ``1:30`` or ``0:01:30.5``
    - ``memory``: see ``parse_memory``
    - ``size``: ``WIDTHxHEIGHT``
    - ``picture``: path of an image file; ``file``: path of any other file to read
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "unit": unit,
                                                        "choices": choices, "flag": flag, "kind": kind})


def choices(item: dataclasses.Field[Any]) -> list[str]:
    """The legal values of a field; empty where any value of its type is legal."""
    registry = item.metadata["choices"]
    if not registry:
        return []
    module, _, name = registry.partition(":")
    return list(getattr(importlib.import_module(module), name))


def flag(item: dataclasses.Field[Any]) -> str:
    """The command-line flag of a field."""
    return str(item.metadata["flag"]) or flag_name(item.name)


def flag_name(name: str) -> str:
    """``field_name`` -> ``--field-name``."""
    return "--" + name.replace("_", "-")


def describe_range(item: dataclasses.Field[Any]) -> str:
    """Such as ``0..1``, ``0 or more``, ``dis, farneback, none``; empty where any value of its type is legal."""
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None:
        return f"{low:.10g}..{high:.10g}" if high is not None else f"{low:.10g} or more"
    return ", ".join(choices(item))


def check(item: dataclasses.Field[Any], value: Any) -> None:
    """Raise SettingsError or UnknownName where ``value`` is not legal for the field."""
    legal_types: Any = int | float if type(item.default) is float else type(item.default)
    if not isinstance(value, legal_types) or isinstance(value, bool) is not (type(item.default) is bool):
        raise _illegal(item, repr(value), describe_type(item))
    _check_digits(item, value)
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None and not low <= value <= (math.inf if high is None else high):
        raise _illegal(item, f"{value:.10g}", f"{describe_range(item)} {item.metadata['unit']}".rstrip())
    if item.metadata["kind"] in ("memory", "size"):
        parse(item, value)
    legal = choices(item)
    if legal and value not in legal:
        raise UnknownName(item.name.replace("_", " "), str(value), legal)


def parse(item: dataclasses.Field[Any], text: str) -> Any:
    """Parse text from a flag or the environment to the field's type. Raises SettingsError."""
    try:
        return _parser(item)[0](text)
    except ValueError:
        raise _illegal(item, repr(text), describe_type(item)) from None


def convert(item: dataclasses.Field[Any], value: Any) -> Any:
    """Convert text or a JSON value to the field's type, and check it. Raises SettingsError or UnknownName."""
    field_type: type = type(item.default)
    if isinstance(value, str) and field_type is not str:
        value = parse(item, value)
    _check_digits(item, value)
    if field_type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if field_type is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    check(item, value)
    return value


def check_strangers(item: dataclasses.Field[Any], value: Any) -> None:
    """Raise SettingsError where a preset or recipe, which a stranger may have written, reaches further than settings of
    a dream should: filter graphs and encoders can write any file, an address tells who reads the preset.
    """
    text = str(value)
    if item.metadata["kind"] in ("picture", "file") and (text.startswith("lavfi:") or "://" in text):
        raise SettingsError(f"{flag(item)} is {text!r}: a preset names files only; give it as a flag")
    if item.name == "encoder_options" and FILE_OPTION.search(text):
        raise SettingsError(f"{flag(item)} is {text!r}, which may read or write files; give it as a flag")


def _check_digits(item: dataclasses.Field[Any], value: Any) -> None:
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise SettingsError(f"{flag(item)} is a number with too many digits")


def describe_type(item: dataclasses.Field[Any]) -> str:
    """Such as ``a whole number``."""
    return _parser(item)[1]


def _illegal(item: dataclasses.Field[Any], value: str, legal: str) -> SettingsError:
    return SettingsError(f"{flag(item)} is {value}, but must be {legal}")


def _parser(item: dataclasses.Field[Any]) -> tuple[Callable[[str], Any], str]:
    parsers: dict[object, tuple[Callable[[str], Any], str]] = {
        "time": (parse_seconds, "a time such as 90, 90s, 1:30 or 0:01:30.5"),
        "memory": (check_memory, f"auto, or {MIN_MEMORY} or more, as 500M, 2G or 1.5GiB"),
        "size": (check_size, "WIDTHxHEIGHT, such as 1280x720"),
        bool: (parse_switch, "true or false"),
        int: (int, "a whole number"), float: (float, "a number"), str: (str, "text")}
    return parsers.get(item.metadata["kind"]) or parsers[type(item.default)]
