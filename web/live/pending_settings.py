"""The unchecked settings of one visitor: only the newest value of each."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamdream.settings import DreamSettings

from ..core.limits import MAX_SETTING_CHARACTERS

NAMES = frozenset(item.name for item in dataclasses.fields(DreamSettings)) | {"model", "look"}
MAX_SHOWN_NAME = 40
"""Characters of an unknown name in the error message."""


@dataclass(frozen=True)
class Batch:
    """Settings since the last batch: the newest values, the number of messages, what was wrong with them."""

    values: dict[str, Any]
    messages: int
    problems: list[str]


class PendingSettings:
    """Collects settings until ``take``: at most one value for each known name, whatever is sent.

    Unknown names are dropped; only the first one is reported.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._messages = 0
        self._problems: dict[str, str] = {}
        self._unknown_reported = False

    def add(self, values: Mapping[str, Any], messages: int = 1) -> None:
        """Add values. Raises AttributeError if ``values`` is not a mapping."""
        for name, value in values.items():
            if name not in NAMES:
                if not self._unknown_reported:
                    self._unknown_reported = True
                    self._problems[""] = f"unknown setting {name[:MAX_SHOWN_NAME]!r}"
            elif not isinstance(value, str | int | float) or (
                    isinstance(value, str) and len(value) > MAX_SETTING_CHARACTERS):
                self._problems[name] = f"{name} is no number and no text of at most {MAX_SETTING_CHARACTERS} characters"
            else:
                self._values[name] = value
        self._messages += messages

    def take(self) -> Batch:
        """Return the pending settings, and start a new batch."""
        batch = Batch(self._values, self._messages, list(self._problems.values()))
        self._values, self._messages, self._problems = {}, 0, {}
        return batch
