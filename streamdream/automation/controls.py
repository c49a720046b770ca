"""What a live run is told while it goes on: keys, the page, a playlist and a replay all turn the same knobs."""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamdream import settings
from streamdream.errors import UnknownName, UsageError
from streamdream.settings import DreamSettings

CROSSFADED_FIELDS = ("layers", "channel", "guide", "style", "style_weight", "style_layers")
"""What a dream is made of: it fades over. All else acts at once."""
MODEL_DEPENDENT_FIELDS = (*CROSSFADED_FIELDS, "octaves", "octave_scale")
"""What a network or a field may turn out to be unfit for."""


@dataclass(frozen=True)
class DreamRequest:
    """What is wanted now."""

    dream: DreamSettings
    model: str = ""
    """Name of the network; empty is the one that the run began with."""


Check = Callable[[DreamRequest], None]
"""Raises a StreamdreamError for what this run cannot dream, such as a layer that its network lacks."""


class Controls:
    """The settings of now, from any thread. A change is taken whole or, with an error, not at all.

    ``frozen``: the picture stands still while the dream grows on it. ``resets`` counts how often the dream was told to
    start anew.
    """

    def __init__(self, dream: DreamSettings, check: Check = lambda wish: None, model: str = "") -> None:
        self._check = check
        self._lock = threading.Lock()
        self._wish = DreamRequest(dream, model)
        self.frozen = False
        self.resets = 0

    def current(self) -> DreamSettings:
        return self._wish.dream

    @property
    def request(self) -> DreamRequest:
        """Settings and network of the same moment."""
        return self._wish

    def change(self, values: Mapping[str, Any]) -> DreamSettings:
        """Fields of ``DreamSettings``, and ``model``, to their new values: of their type, or as the text of their flag.

        Another network has other layers, so both change in one call. Raises SettingsError or UnknownName, and what the
        check raises; then nothing has changed.
        """
        typed, errors = parse_values(values)
        if errors:
            raise errors[0]
        model = typed.pop("model", None)
        with self._lock:
            before = self._wish
            wish = DreamRequest(dataclasses.replace(before.dream, **typed), before.model if model is None else model)
            self._check(wish)
            self._wish = wish
            return wish.dream

    def revert_to(self, instead: DreamRequest) -> None:
        """What was wanted cannot be, as it turned out: ``instead`` is dreamed, as before. All else stays as it is."""
        with self._lock:
            back = {name: getattr(instead.dream, name) for name in MODEL_DEPENDENT_FIELDS}
            self._wish = DreamRequest(dataclasses.replace(self._wish.dream, **back), instead.model)

    def reset(self) -> None:
        """The dream starts anew, as at the first frame."""
        with self._lock:
            self.resets += 1


def parse_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[UsageError]]:
    """Each value as the type of its field and within its range, and an error for each that is not. Names are fields of
    ``DreamSettings``, and ``model``.
    """
    known = {item.name: item for item in dataclasses.fields(DreamSettings)}
    typed: dict[str, Any] = {}
    errors: list[UsageError] = []
    for name, value in values.items():
        try:
            if name == "model":
                typed[name] = str(value)
            elif name not in known:
                raise UnknownName("setting", str(name), [*known, "model"],
                                  renamed=settings.RENAMED_FIELDS.get(str(name), ""))
            else:
                typed[name] = settings.convert(known[name], value)
        except UsageError as error:
            errors.append(error)
    return typed, errors
