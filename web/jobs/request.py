"""What a job shall dream, as data: it is stored, so that a server that was restarted goes on with it."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamdream import models
from streamdream.dream.octaves import fitting_octaves
from streamdream.dream.options import DreamOptions
from streamdream.errors import SettingsError
from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings

from .file_inspection import MediaInfo
from .uploads import Upload

VIDEO, PICTURE = "video", "picture"
FILES = tuple(item.name for item in dataclasses.fields(DreamSettings) if item.metadata["kind"] == "picture")
"""Settings that name a file: guide, style, mask."""
INPUT = "input"
"""Name of the dreamed file in the job's folder, without its suffix; other files have the name of their setting."""


@dataclass(frozen=True)
class JobRequest:
    """The files of a job are in its folder, under names that are no visitor's."""

    kind: str
    """``video`` or ``picture``."""
    model: str
    field_height: int
    dream: Mapping[str, Any]
    """``DreamSettings`` without its files."""
    facts: MediaInfo
    """Of the input."""
    names: Mapping[str, str] = field(default_factory=dict)
    """File in the job's folder -> the name that its visitor gave it."""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    """The span of a video; None is its end."""
    notes: tuple[str, ...] = ()
    """What the visitor should know of the settings."""

    @classmethod
    def of(cls, upload: Upload, model: str, field_height: int, dream: DreamSettings, span: TimeRange,
           files: Mapping[str, Upload]) -> JobRequest:
        """``files`` are those of the settings, by the name of the setting."""
        settings = {name: value for name, value in dataclasses.asdict(dream).items() if name not in FILES}
        names = {name: file.name for name, file in cls.files_of(upload, files).items()}
        end = None if span.end is None else float(span.end)
        notes: tuple[str, ...] = ()
        size = DreamOptions(field_height).field_size(upload.facts.height, upload.facts.width)
        fitting = fitting_octaves(models.get(model), dream, size)
        if 0 < fitting < dream.octaves:
            settings["octaves"] = fitting
            notes = (f"{dream.octaves} octaves are too many for this picture; it is dreamed with {fitting}",)
        return cls(VIDEO if upload.is_video else PICTURE, model, field_height, settings, upload.facts, names,
                   float(span.start), end, notes)

    @staticmethod
    def files_of(upload: Upload, files: Mapping[str, Upload]) -> dict[str, Upload]:
        """Return all files of a job by their names in its folder."""
        return {file_name(role, file): file for role, file in {INPUT: upload, **files}.items()}

    @property
    def span(self) -> TimeRange:
        return TimeRange.of(self.start_seconds) if self.end_seconds is None else (
            TimeRange.of(self.start_seconds, end=self.end_seconds))

    def input_path(self, folder: Path) -> Path:
        return folder / f"{INPUT}{self.facts.suffix}"

    def upload(self, folder: Path) -> Upload:
        """Return the input as the upload that it was."""
        path = self.input_path(folder)
        return Upload(path.stem, path, self.names.get(path.name, path.name), self.facts)

    def settings(self, folder: Path) -> DreamSettings:
        """Return the settings with the files in ``folder``. Raises SettingsError."""
        files = {Path(name).stem: str(folder / name) for name in self.names}
        try:
            return DreamSettings(**{**self.dream, **{role: files[role] for role in FILES if role in files}})
        except TypeError:
            raise SettingsError("another version of streamdream has begun this; start it again") from None

    def paths(self, folder: Path) -> dict[str, str]:
        """Path of each file -> the visitor's name."""
        return {str(folder / name): shown for name, shown in self.names.items()}

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobRequest:
        """Raises TypeError, KeyError or ValueError for what ``to_json`` does not write."""
        facts = MediaInfo(**{**values["facts"], "notes": tuple(values["facts"]["notes"])})
        if values["kind"] not in (VIDEO, PICTURE) or any(Path(name).name != name for name in values["names"]):
            raise ValueError("no request")
        return cls(**{**values, "facts": facts, "notes": tuple(values.get("notes", ()))})


def file_name(role: str, upload: Upload) -> str:
    return f"{role}{upload.path.suffix}"
