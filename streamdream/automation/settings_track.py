"""Record the settings of a live run over time in a file, and read such a track, to repeat the run or to render it.

The file has one JSON object per line: first all settings, then each change with its time in the input (``seconds``).
"""
from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from streamdream.automation.controls import Controls, DreamRequest
from streamdream.errors import SettingsError, SinkError, StreamdreamError
from streamdream.system.atomic_file import AtomicFile

FORMAT = "streamdream settings 1"
MAX_BYTES = 1 << 24
"""Of a track that is read: hundreds of thousands of changes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettingsEvent:
    """A change of settings at a time of the input."""

    seconds: float
    values: dict[str, Any]
    frozen: bool | None = None
    reset: bool = False

    def apply(self, controls: Controls) -> None:
        """Change the settings. Raises SettingsError or UnknownName."""
        if self.values:
            controls.change(self.values)
        if self.frozen is not None:
            controls.frozen = self.frozen
        if self.reset:
            controls.reset()


class SettingsRecorder:
    """Writes a track, which appears under its name when it is complete. Raises SinkError; see ``AtomicFile``."""

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self._output = AtomicFile(path, overwrite=overwrite)
        self._file: IO[str] = self._output.path.open("w", encoding="utf-8")
        self._last: dict[str, Any] = {}

    def record(self, seconds: float, request: DreamRequest, frozen: bool, resets: int) -> None:
        """Record the values at that time; write only those that have changed. Raises SinkError."""
        values = {**dataclasses.asdict(request.dream), "model": request.model, "frozen": frozen, "resets": resets}
        if values == self._last:
            return
        changed = {name: value for name, value in values.items()
                   if name not in self._last or self._last[name] != value}
        event: dict[str, Any] = {"seconds": round(seconds, 4)} if self._last else {"format": FORMAT}
        if self._last and "resets" in changed:
            event["reset"] = True
        changed.pop("resets", None)
        if "frozen" in changed:
            event["frozen"] = changed.pop("frozen")
        try:
            self._file.write(json.dumps({**event, **({"set": changed} if changed else {})}, ensure_ascii=False) + "\n")
        except OSError as error:
            self._output.raise_error(error)
        self._last = values

    def __enter__(self) -> SettingsRecorder:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
            if self._last:  # keep the track, also when an error ended the run
                self._output.commit()
        except OSError as write_error:
            self._output.raise_error(write_error)
        except SinkError as write_error:
            if error[0] is None:
                raise
            log.warning("%s", write_error)  # the error that ended the run is the one to raise
        finally:
            self._output.discard()


def read_track(path: str) -> list[SettingsEvent]:
    """Read the events of a track; the first, at 0 s, has all settings. Raises SettingsError, which names the line."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        lines = data.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"--settings-track {path}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(f"--settings-track {path} is longer than {MAX_BYTES >> 20} MB")
    events: list[SettingsEvent] = []
    for number, line in enumerate(lines, 1):
        try:
            event = _read_event(json.loads(line), first=not events)
            if events and event.seconds < events[-1].seconds:
                raise SettingsError("time goes backward")
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError, StreamdreamError
                ) as error:
            raise SettingsError(f"--settings-track {path}, line {number}: {_error_text(error)}") from None
        events.append(event)
    if not events:
        raise SettingsError(f"--settings-track {path} is empty")
    return events


def _read_event(stored: dict[str, Any], first: bool) -> SettingsEvent:
    if first and stored.get("format") != FORMAT:
        raise SettingsError("it is no track that --record-settings wrote")
    seconds, frozen = 0.0 if first else float(stored["seconds"]), stored.get("frozen")
    if not math.isfinite(seconds) or not isinstance(frozen, bool | None):
        raise ValueError(stored)
    return SettingsEvent(seconds, dict(stored.get("set", {})), frozen, bool(stored.get("reset")))


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, StreamdreamError) else "it is not as --record-settings writes it"
