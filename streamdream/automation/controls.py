"""Settings that can be changed during a run: by keys, the web page, a playlist or a recorded track."""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamdream import settings, settings_fields
from streamdream.errors import UnknownName, UsageError
from streamdream.settings import DreamSettings

CROSSFADED_FIELDS = ("layers", "channel", "guide", "style", "style_weight", "style_layers")
"""Settings of the content of a dream, which are crossfaded. All other settings act at once."""
MODEL_DEPENDENT_FIELDS = (*CROSSFADED_FIELDS, "octaves", "octave_scale")
"""Settings that may not work with every model or field."""


@dataclass(frozen=True)
class DreamRequest:
    """What to dream: settings and model."""

    dream: DreamSettings
    model: str = ""
    """Name of the model; empty for the one that the run started with."""
    kept: float = 1.0
    """Fraction of the carried dream to go on from; below 1 after a change of content (see forgetting.py)."""


Check = Callable[[DreamRequest], None]
"""Raises a StreamdreamError for a request that this run cannot dream, such as a layer that its model lacks."""


class Controls:
    """The current settings. Thread-safe; a change is applied completely or, if it raises, not at all.

    ``frozen`` says whether the picture is frozen while dreaming continues; ``resets`` counts the calls of ``reset``.
    """

    def __init__(self, dream: DreamSettings, check: Check = lambda request: None, model: str = "") -> None:
        self._check = check
        self._lock = threading.Lock()
        self._request = DreamRequest(dream, model)
        self.frozen = False
        self.resets = 0

    def current(self) -> DreamSettings:
        """Return the current settings."""
        return self._request.dream

    @property
    def request(self) -> DreamRequest:
        """Return settings and model, read at the same moment."""
        return self._request

    def change(self, values: Mapping[str, Any]) -> DreamSettings:
        """Change settings. Return the new ones.

        ``values`` maps fields of ``DreamSettings``, and ``model``, to values of their type or the text of their flag.
        Models have different layers, so change both in one call. Raises SettingsError or UnknownName, and what the
        check raises; then nothing has changed.
        """
        typed, errors = parse_values(values)
        if errors:
            raise errors[0]
        model = typed.pop("model", None)
        with self._lock:
            old = self._request
            new = DreamRequest(dataclasses.replace(old.dream, **typed), old.model if model is None else model)
            self._check(new)
            self._request = new
            return new.dream

    def revert_to(self, request: DreamRequest) -> None:
        """Restore model and MODEL_DEPENDENT_FIELDS of an earlier ``request``, as the current one cannot be dreamed."""
        with self._lock:
            restored = {name: getattr(request.dream, name) for name in MODEL_DEPENDENT_FIELDS}
            self._request = DreamRequest(dataclasses.replace(self._request.dream, **restored), request.model)

    def reset(self) -> None:
        """Restart the dream, as at the first frame."""
        with self._lock:
            self.resets += 1


def parse_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[UsageError]]:
    """Convert each value to the type of its field, and check its range. Return the valid values and the errors.

    Names are the fields of ``DreamSettings``, and ``model``.
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
                typed[name] = settings_fields.convert(known[name], value)
        except UsageError as error:
            errors.append(error)
    return typed, errors
