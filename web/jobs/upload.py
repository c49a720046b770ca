"""A visitor's file that passed the inspection, and its record beside the file, by which a new server knows it."""
from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange
from streamdream.media.sources.av_source import AvSource

from ..core import strings
from . import file_inspection
from .file_inspection import MediaInfo

MAX_NAME_LENGTH = 60
MAX_RECORD_BYTES = 100_000
MIN_DECODER_PIXELS = 1 << 20
"""Pixels that a decoder may always allocate: more than the visible ones of a small frame."""
WHOLE_VIDEO = TimeRange()
TOKEN = re.compile(r"[A-Za-z0-9_-]{24}")
RECORD = ".json"
MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".3gp": "video/3gpp", ".gif": "image/gif",
               ".mkv": "video/x-matroska", ".webm": "video/webm", ".png": "image/png", ".jpg": "image/jpeg"}
"""Of files that browsers may show, by our own suffix; a browser plays a .mov under the name of its sibling."""


@dataclass
class Upload:
    """A file that passed the inspection. ``name`` is the visitor's, only for display, and must be escaped."""

    token: str
    path: Path
    name: str
    facts: MediaInfo
    visitor: str = ""
    """The visitor whose file it is; "" until it is claimed."""
    address: str = ""
    """The address that sent it."""
    size_bytes: int = 0
    at_seconds: float = 0.0
    """When it was received, or last claimed."""
    seen_seconds: float = 0.0
    """When its visitor was last seen."""
    is_foreign: bool = False
    """Whether another server that shares the folder has received it."""

    @property
    def is_video(self) -> bool:
        return self.facts.suffix in file_inspection.UPLOADABLE_VIDEOS

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES.get(self.facts.suffix, "application/octet-stream")

    def as_json(self) -> dict[str, Any]:
        """What the page needs to know of it."""
        facts = self.facts
        return {"token": self.token, "name": self.name, "video": self.is_video, "type": self.media_type,
                "bytes": self.size_bytes, "width": facts.width, "height": facts.height, "seconds": facts.seconds,
                "sound": facts.sound}

    def open(self, span: TimeRange = WHOLE_VIDEO) -> AvSource:
        """Open the frames of a video in that span. Frames much larger than its header says count as damage.

        Raises UsageError when the file is gone, and what AvSource raises.
        """
        if not self.path.exists():
            raise UsageError(strings.text("upload.gone"))
        largest = max(MIN_DECODER_PIXELS, 2 * self.facts.width * self.facts.height)

        def open_safely() -> Any:
            container = file_inspection.open_video(self.path)
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = {"max_pixels": str(largest)}
            return container

        return AvSource("the video", open_safely, span)


def clean_name(name: str) -> str:
    """Return what is displayed of a file name: its last part, without control characters, at most MAX_NAME_LENGTH."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(letter for letter in last if letter.isprintable())
    return shown if len(shown) <= MAX_NAME_LENGTH else shown[:MAX_NAME_LENGTH - 1] + "…"


def write_record(upload: Upload) -> None:
    """Write the record beside the file, at once or not at all."""
    record = upload.path.with_suffix(RECORD)
    text = json.dumps({"name": upload.name, "visitor": upload.visitor, "address": upload.address,
                       "size_bytes": upload.size_bytes, "facts": asdict(upload.facts)})
    unfinished = record.with_name(record.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(record)


def stamp_record(upload: Upload, seen_seconds: float) -> float:
    """Note in the record's own time when the visitor was last seen, in seconds since 1970, and return that: a server
    that shares the folder may have seen them later. Raises FileNotFoundError when the file is not kept any more.
    """
    record = upload.path.with_suffix(RECORD)
    try:
        noted_seconds = record.stat().st_mtime
        if noted_seconds < seen_seconds:
            os.utime(record, (seen_seconds, seen_seconds))
        return max(seen_seconds, noted_seconds)
    except FileNotFoundError:
        raise
    except OSError:
        return seen_seconds


def read_record(folder: Path, token: str) -> tuple[Upload, float] | None:
    """Return the file of that token, and when its visitor was last seen; None if there is none."""
    record = folder / f"{token}{RECORD}"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if TOKEN.fullmatch(token) and _is_plain(record):
            upload = _read_record(record)
            if _is_plain(upload.path) and upload.path.stat().st_size == upload.size_bytes:
                return upload, record.stat().st_mtime
    return None


def take_up(folder: Path, others_seconds: float = 0.0) -> Iterator[tuple[Upload, float]]:
    """Yield the files that records name, and when each visitor was last seen; remove all other files of the folder that
    are older than ``others_seconds``.
    """
    kept = set()
    for record in sorted(folder.glob(f"*{RECORD}")):
        if found := read_record(folder, record.stem):
            kept |= {record, found[0].path}
            yield found
    for path in folder.iterdir():
        if path not in kept and (path.is_symlink() or not path.is_dir()) and _age_seconds(path) >= others_seconds:
            path.unlink(missing_ok=True)


def _age_seconds(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.lstat().st_mtime)
    except OSError:  # removed meanwhile
        return 0.0


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _read_record(record: Path) -> Upload:
    """Raises OSError, ValueError, TypeError or KeyError for what is no record of ours."""
    if record.stat().st_size > MAX_RECORD_BYTES or not TOKEN.fullmatch(record.stem):
        raise ValueError
    fields = json.loads(record.read_text(encoding="utf-8"))
    facts = MediaInfo(**{**fields["facts"], "notes": tuple(map(str, fields["facts"]["notes"]))})
    numbers = (facts.width, facts.height, facts.seconds, facts.frames, fields["size_bytes"])
    if facts.suffix not in MEDIA_SUFFIXES or not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError
    return Upload(record.stem, record.with_suffix(facts.suffix), clean_name(str(fields["name"])), facts,
                  str(fields["visitor"]), str(fields["address"]), fields["size_bytes"])


MEDIA_SUFFIXES = frozenset((*file_inspection.UPLOADABLE_VIDEOS, *file_inspection.UPLOADABLE_PICTURES))
