"""Refuse a command that would write to a file that it reads, or twice to one file, before any file is opened.

``READ`` and ``WRITTEN`` list the options of the commands that name files; for settings, the metadata ``kind`` tells. A
test fails for an option that it knows neither from here nor as something other than a file.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamdream import settings, settings_fields
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, Run
from streamdream.system.file_names import fold_name

READ = {"input": "the input", "source": "--source", "settings_track": "--settings-track", "preset": "--preset",
        "file": "--from", "clip": "--clip"}
"""Destination of an option that names a file to read -> its name in a message."""
INPUTS = (READ["input"], READ["source"])
WRITTEN = {"output": "-o", "sink": "--sink", "record_settings": "--record-settings", "progress": "--progress",
           "work_folder": "--work-folder", "preview": "--preview"}
"""As ``READ``, for files to write."""
ANY_KIND = (WRITTEN["progress"], WRITTEN["work_folder"])
"""May be a pipe, a device or a folder: nothing replaces it."""
FILE_KINDS = ("picture", "file")
"""Kinds of settings that name a file to read."""
NO_FILES = ("null", "window", "virtualcam", "stream", "pipe")
"""Sinks whose name is no path. An HLS stream writes files all the same: see ``SinkType.files``."""
FILTER_FILE = re.compile(r"(?:^|[^a-z])a?movie=(?:filename=)?'?([^:,;'\[\]]+)")
"""Matches a file that an FFmpeg filter graph reads."""


@dataclass(frozen=True)
class NamedPath:
    """An option and its value: a path, a pattern of paths, or something that is no path."""

    option: str
    text: str

    def __str__(self) -> str:
        return f"{self.option} {self.text}"


def check(args: argparse.Namespace, run: Run | None = None, writes: Iterable[NamedPath] = (),
          folder: bool = False) -> None:
    """Raise UsageError if an output is also an input, if two outputs are one file, or if a file cannot replace it.

    ``writes`` are outputs in addition to ``WRITTEN``; with ``folder`` the output is a folder.
    """
    check_not_empty(args)
    outputs = list(_written(args))
    for output in outputs:
        if output.option not in ANY_KIND:
            _check_kind(output, folder)
    for number, output in enumerate(outputs):
        for other in outputs[:number]:
            if WRITTEN["work_folder"] not in (output.option, other.option) and _same_output(other.text, output.text):
                raise UsageError(f"{other} and {output} are the same file; give one of them another name")
    files = [(output, _identities(output.text)) for output in [*outputs, *writes]]
    for named in _read(args, run) if files else ():
        identities = _identities(named.text)
        for output, written in files:
            if identities & written:
                conflict = "is the input itself" if named.option in INPUTS else f"would overwrite {named}"
                raise UsageError(f"{output} {conflict}; give the output another name")


def _written(args: argparse.Namespace) -> Iterator[NamedPath]:
    from streamdream.media.sinks.registry import SINKS

    for destination, option in WRITTEN.items():
        for text in _texts(args, destination):
            if option in ANY_KIND:
                if not text.startswith("pipe:"):
                    yield NamedPath(option, text)
                continue
            name, kind = next(((name, kind) for name, kind in SINKS.items() if kind.matches(text)), ("", None))
            for file in kind.files(text) if kind is not None and name in NO_FILES else [text]:
                yield NamedPath(option, file)


def _read(args: argparse.Namespace, run: Run | None) -> Iterator[NamedPath]:
    for destination, option in READ.items():
        for text in _texts(args, destination):
            yield NamedPath(option, str(settings.preset_path(text)) if destination == "preset" else text)
    for group in (getattr(run, item.name) for item in dataclasses.fields(run)) if run is not None else ():
        for item in dataclasses.fields(group):
            if item.metadata["kind"] in FILE_KINDS and (text := getattr(group, item.name)):
                yield NamedPath(settings_fields.flag(item), text)
    if run is not None and getattr(args, "settings_track", None) is not None:
        yield from _read_by_automation(args, run)


def _texts(args: argparse.Namespace, destination: str) -> list[str]:
    value = getattr(args, destination, None) or []
    return [value] if isinstance(value, str) else list(value)


def _read_by_automation(args: argparse.Namespace, run: Run) -> Iterator[NamedPath]:
    """Yield the pictures that a playlist or a settings track names. Raises StreamdreamError as their parsers do."""
    from streamdream.automation.automation import parse_playlist
    from streamdream.automation.settings_track import read_track

    entries = [
        ("--playlist", entry.values)
        for entry in parse_playlist(run.automation.playlist, run.automation.playlist_seconds)
    ]
    if args.settings_track:
        entries += [("--settings-track", event.values) for event in read_track(args.settings_track)]
    pictures = [item.name for item in dataclasses.fields(DreamSettings) if item.metadata["kind"] in FILE_KINDS]
    for option, values in entries:
        for name in pictures:
            if text := values.get(name):
                yield NamedPath(f"{option}, {name}", str(text))


def check_not_empty(args: argparse.Namespace) -> None:
    for destination, option in (READ | WRITTEN).items():
        value = getattr(args, destination, None)
        values = value if isinstance(value, list) else [value]
        if destination in ("input", "source", "output", "sink") and "" in values:
            raise UsageError(f"{option} is empty; name a file")


def _check_kind(output: NamedPath, folder: bool) -> None:
    if output.text == "-":
        raise UsageError(f"{output}: only render writes to the standard output; name a file")
    if "://" in output.text:
        raise UsageError(f"{output}: an output is a file; streamdream live --sink streams to rtmp, udp and tcp URLs")
    for path in _files(output.text) or [Path(output.text)]:
        if path.is_dir() and not folder:
            raise UsageError(f"{output}: {path} is a folder")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(f"{output}: {path} is a pipe or a device; only a file can be replaced")


def _files(text: str) -> list[Path]:
    """Return the existing files among those that ``text`` names."""
    from streamdream.media.picture_files import glob_files, is_glob

    if text.startswith("lavfi:"):
        return [Path(name) for name in FILTER_FILE.findall(text)]
    if "://" in text:
        return [Path(text.partition("file:")[2])] if "file:" in text else []
    path = Path(text)
    with contextlib.suppress(OSError, ValueError, TypeError):  # not a path, or a pattern without a number
        if is_glob(text):
            return glob_files(text)
        return [path] if path.exists() else _members(path)
    return []


def _members(pattern: Path) -> list[Path]:
    """Return the existing files of a numbered sequence, also on a file system that ignores case."""
    from streamdream.media.input_container import is_pattern

    if not is_pattern(str(pattern)):
        return []
    shape, members = _shape(pattern.name), []
    for path in pattern.parent.iterdir():
        if match := shape.fullmatch(fold_name(path.name)):
            member = pattern.with_name(pattern.name % int(match[1]))
            members += [member] if member.exists() else []
    return members


def _identities(text: str) -> set[tuple[int, int]]:
    """Return (device, inode) of each regular file; all its names, links and spellings share them."""
    identities = set()
    for path in _files(text):
        with contextlib.suppress(OSError):
            info = path.stat()
            if stat.S_ISREG(info.st_mode):
                identities.add((info.st_dev, info.st_ino))
    return identities


def _same_output(first: str, second: str) -> bool:
    """Return whether two outputs, which need not exist, would be one file. Case makes no difference."""
    if _identities(first) & _identities(second):
        return True
    paths = [Path(os.path.realpath(text)) for text in (first, second)]
    if len({fold_name(str(path.parent)) for path in paths}) > 1:
        return False
    from streamdream.media.input_container import NUMBER

    numbered = [fold_name(NUMBER.sub("1", path.name)) for path in paths]
    return any(_shape(path.name).fullmatch(other) for path, other in zip(paths, reversed(numbered), strict=True))


def _shape(name: str) -> re.Pattern[str]:
    """Return a regex for a folded file name, or for those of a pattern, with the number as the first group."""
    from streamdream.media.input_container import NUMBER

    return re.compile("([0-9]+)".join(re.escape(fold_name(part)) for part in NUMBER.split(name, maxsplit=1)))
