"""Many inputs: which files they are, what the dream of each is called, and which dreams are there already."""
from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamdream.errors import StreamdreamError, UnknownName, UsageError
from streamdream.media.images import WRITABLE
from streamdream.media.input_container import is_pattern
from streamdream.media.picture_decoder import is_picture
from streamdream.media.picture_files import (
    folder_files,
    glob_files,
    in_natural_order,
    is_glob,
    join_list,
    picture_files,
)
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sources.video import open_source
from streamdream.system.file_names import fold_name

VIDEO_SUFFIXES = (*CONTAINERS, ".3g2", ".3gp", ".asf", ".dv", ".flv", ".ivf", ".m2ts", ".mj2", ".mjpg", ".mpeg", ".mpg",
                  ".mts", ".mxf", ".ogv", ".rm", ".ts", ".vob", ".wmv", ".wtv", ".y4m")
"""What is taken from a folder."""
FALLBACK_SUFFIX = ".mp4"
"""Of the dream of a file whose own container cannot be written."""
PARTIAL = ".partial."
"""In the name of a recording that is not finished."""
TAIL_SECONDS = 2


@dataclass(frozen=True)
class Task:
    """One file of a batch."""

    input: str
    output: str


def output_is_folder(inputs: Sequence[str], output: str) -> bool:
    """Whether the inputs go into a folder of that name, which need not exist; else they are pictures of one video."""
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        return True
    if len(inputs) == 1 and not Path(inputs[0]).is_dir() and not is_glob(inputs[0]):
        return False
    return not _names_a_file(output)


def _names_a_file(output: str) -> bool:
    return (output == "null" or "://" in output or Path(output).exists()
            or Path(output).suffix.lower() in (*CONTAINERS, *WRITABLE))


def find_pictures(inputs: Sequence[str], output: str) -> str:
    """One input for one output: several pictures, or all that match, are one video. Raises UsageError."""
    if len(inputs) == 1 and not is_glob(inputs[0]):
        name = inputs[0]
        if Path(name).is_dir() and not folder_files(name):
            raise UsageError(f"{name} is a folder without pictures; the dreams of its videos go into a folder, as -o "
                             "dreams/")
        return name
    files = [str(path) for name in in_natural_order(list(inputs)) for path in picture_files(name) or [Path(name)]]
    if others := [file for file in files if Path(file).exists() and not is_picture(file)]:
        if len(inputs) == 1:
            raise UsageError(f"{inputs[0]} matches {others[0]}, which is no picture; the dreams of videos go into a "
                             "folder, as -o dreams/")
        raise UsageError(f"-o {output}: {others[0]} is no picture; the dreams of several videos need a folder to go "
                         "into, as -o dreams/")
    return inputs[0] if len(inputs) == 1 else join_list(files)


def plan_batch(inputs: Sequence[str], folder: str, suffix: str = "", container: str = "", overwrite: bool = False
               ) -> list[Task]:
    """The task of each video: of files, of folders (not of folders in them) and of patterns such as ``*.mov``.

    A file that is the dream of another one is left out, unless it was named and would be overwritten. Raises
    UsageError for two inputs with one output, and for an input that is no file.
    """
    extension = f".{container.removeprefix('.').lower()}" if container else ""
    if extension and extension not in CONTAINERS:
        raise UnknownName("container", container, [name.removeprefix(".") for name in CONTAINERS])
    if "/" in suffix or os.sep in suffix:
        raise UsageError(f"--suffix {suffix}: it is part of a file name, not of a path")
    tasks: dict[str, Task] = {}
    named = set()
    for name, is_named in _find_files(inputs):
        path, identity = Path(name), os.path.realpath(name)
        output = path.stem + suffix + (extension or (path.suffix if path.suffix.lower() in CONTAINERS
                                                     else FALLBACK_SUFFIX))
        tasks.setdefault(identity, Task(name, str(Path(folder) / output)))
        named |= {identity} if is_named and overwrite else set()
    outputs = {os.path.realpath(task.output): identity for identity, task in tasks.items()}
    kept = [task for identity, task in tasks.items()
            if identity in named or outputs.get(identity, identity) == identity]
    _check_names(kept)
    return kept


def _find_files(inputs: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each file, and whether it was named itself. Raises UsageError."""
    for name in inputs:
        matches = [name]
        if glob.has_magic(name) and not Path(name).exists():
            matches = [str(path) for path in glob_files(name)]
            if not matches:
                raise UsageError(f"no file matches {name}")
        for match in matches:
            if Path(match).is_dir():
                found = sorted(_find_videos(match))
                if not found and match == name:
                    raise UsageError(f"the folder {name} holds no video; folders in it are not searched")
                yield from ((file, False) for file in found)
            elif "://" in match or match.startswith("lavfi:") or (is_pattern(match) and not Path(match).exists()):
                raise UsageError(f"{match} has no name for a file in a folder; -o dream.mp4 names one")
            else:
                yield match, match == name


def _find_videos(folder: str) -> Iterator[str]:
    for path in Path(folder).iterdir():
        hidden = path.name.startswith(".") or PARTIAL in path.name
        if path.suffix.lower() in VIDEO_SUFFIXES and not hidden and path.is_file():
            yield str(path)


def _check_names(tasks: Sequence[Task]) -> None:
    taken: dict[str, Task] = {}
    for task in tasks:
        if os.path.realpath(task.input) == os.path.realpath(task.output):
            raise UsageError(f"{task.output} is the input itself; --suffix -dream gives the output another name")
        other = taken.setdefault(fold_name(os.path.realpath(task.output)), task)
        if other is not task:
            raise UsageError(f"{other.input} and {task.input} would both become {task.output}; render them into "
                             "different folders")


def is_whole(path: str) -> bool:
    """Whether a video can be decoded to the end that it states. Looks at its last seconds, where that is enough."""
    try:
        with open_source(path) as source:
            tail = max(0.0, float(source.frame_count / source.rate) - TAIL_SECONDS)
        try:
            return _ends_well(path, tail)
        except UsageError:  # no frame begins in its last seconds
            return _ends_well(path, 0)
    except StreamdreamError:
        return False


def _ends_well(path: str, start: float) -> bool:
    with open_source(path, start) as source:
        for _ in source:
            pass
        return not source.warnings
