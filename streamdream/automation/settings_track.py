"""Settings over time, in a file: what somebody played live, to be dreamed again with all the time in the world.

One JSON object a line: first all settings, then each change with the ``seconds`` of the input at which it came.
"""
from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from streamdream.automation.controls import Controls, DreamRequest
from streamdream.errors import SettingsError, SinkError, StreamdreamError
from streamdream.system.atomic_file import AtomicFile

FORMAT = "streamdream settings 1"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettingsEvent:
    """What changed, and when."""

    seconds: float
    values: dict[str, Any]
    frozen: bool | None = None
    reset: bool = False

    def apply(self, controls: Controls) -> None:
        if self.values:
            controls.change(self.values)
        if self.frozen is not None:
            controls.frozen = self.frozen
        if self.reset:
            controls.reset()


class SettingsRecorder:
    """Writes a track; it appears under its name when it is whole. Raises SinkError; see ``Partial``."""

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self._partial = AtomicFile(path, overwrite=overwrite)
        self._file: IO[str] = self._partial.path.open("w", encoding="utf-8")
        self._last: dict[str, Any] = {}

    def record(self, seconds: float, request: DreamRequest, frozen: bool, resets: int) -> None:
        """What is so at that time; only what differs from before is written."""
        now = {**dataclasses.asdict(request.dream), "model": request.model, "frozen": frozen, "resets": resets}
        if now == self._last:
            return
        changed = {name: value for name, value in now.items() if self._last.get(name, now) != value}
        event: dict[str, Any] = {"seconds": round(seconds, 4)} if self._last else {"format": FORMAT}
        if self._last and "resets" in changed:
            event["reset"] = True
        changed.pop("resets", None)
        if "frozen" in changed:
            event["frozen"] = changed.pop("frozen")
        try:
            self._file.write(json.dumps({**event, **({"set": changed} if changed else {})}, ensure_ascii=False) + "\n")
        except OSError as error:
            self._partial.raise_error(error)
        self._last = now

    def __enter__(self) -> SettingsRecorder:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
            if self._last:  # what was played is kept, whatever ended the run
                self._partial.commit()
        except OSError as failed:
            self._partial.raise_error(failed)
        except SinkError as failed:
            if error[0] is None:
                raise
            log.warning("%s", failed)  # what ended the run is the error
        finally:
            self._partial.discard()


def read_track(path: str) -> list[SettingsEvent]:
    """The events of a track; the first, at 0, sets everything. Raises SettingsError, with the line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"--settings-track {path}: {why}") from None
    events: list[SettingsEvent] = []
    for number, line in enumerate(lines, 1):
        try:
            event = _read_event(json.loads(line), first=not events)
            if events and event.seconds < events[-1].seconds:
                raise SettingsError("time goes backward")
        except (ValueError, KeyError, TypeError, AttributeError, StreamdreamError) as error:
            raise SettingsError(f"--settings-track {path}, line {number}: {_error_text(error)}") from None
        events.append(event)
    if not events:
        raise SettingsError(f"--settings-track {path} is empty")
    return events


def _read_event(stored: dict[str, Any], first: bool) -> SettingsEvent:
    if first and stored.get("format") != FORMAT:
        raise SettingsError("it is no track that --record-settings wrote")
    return SettingsEvent(0.0 if first else float(stored["seconds"]), dict(stored.get("set", {})), stored.get("frozen"),
                 bool(stored.get("reset")))


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, StreamdreamError) else "it is not as --record-settings writes it"
