"""One render as data: an input, an output, and all settings."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamdream import settings
from streamdream.automation.opening import AutomationFiles
from streamdream.dream.options import DreamOptions
from streamdream.media.hardware_decoding import Hwaccel
from streamdream.media.picture_files import describe_input
from streamdream.media.sources.video import FileSource, open_source
from streamdream.settings import Run


@dataclass(frozen=True)
class RenderJob:
    """What ``streamdream render`` was told for one file."""

    input: str
    output: str
    run: Run
    overwrite: bool = False
    settings_track: str = ""
    record_settings: str = ""

    @property
    def shown_input(self) -> str:
        return describe_input(self.input)

    @property
    def automation_files(self) -> AutomationFiles:
        return AutomationFiles(self.settings_track, self.record_settings, self.overwrite)

    def to_json(self) -> dict[str, Any]:
        """All that another process needs to carry it out; its paths are relative to ``folder``."""
        return {"folder": str(Path.cwd()), "input": self.input, "output": self.output, "overwrite": self.overwrite,
                "settings_track": self.settings_track,
                "settings": {name: text for group in vars(self.run).values()
                             for name, text in settings_text(group, defaults=False).items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RenderJob:
        """Raises SettingsError, UnknownName or KeyError for values that ``to_json`` does not write."""
        return cls(values["input"], values["output"], settings.resolve(values["settings"], {}), values["overwrite"],
                   values["settings_track"])


def settings_text(group: Any, defaults: bool = True) -> dict[str, str]:
    """Each setting of a group as the text of its flag; without ``defaults`` only those that have another value."""
    values = {item.name: getattr(group, item.name) for item in dataclasses.fields(group)
              if defaults or getattr(group, item.name) != item.default}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def open_job_source(job: RenderJob, at_seconds: float = 0.0) -> FileSource:
    """The frames of the job, from ``at_seconds`` after its start on, with their pictures. Raises as ``open_source``."""
    render = job.run.render
    start = render.start + at_seconds
    source = open_source(job.input, start, render.start + render.duration - start, render.end,
                         render.deinterlace, render.input_rate, Hwaccel(render.hwaccel, job.run.stream.device))
    return with_pictures(source, job.run.stream.field_height)


def with_pictures(source: FileSource, field_height: int) -> FileSource:
    """Let a source deliver the pictures of a render with that field, and return it. Closes it on an error."""
    try:
        source.deliver_pictures(*DreamOptions(field_height).field_size(source.height, source.width))
    except BaseException:
        source.close()
        raise
    return source
