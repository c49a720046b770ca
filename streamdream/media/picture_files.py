"""Inputs that are many picture files: a list of them, a folder, ``shots/*.jpg`` or ``img%04d.png``, as one name."""
from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from streamdream.errors import MissingPackage, StreamdreamError, UsageError
from streamdream.media.images import READABLE
from streamdream.media.input_container import is_pattern, sequence_files
from streamdream.media.picture_decoder import count_pictures, open_picture

SEPARATOR = "\0"
"""Between the files of a list: no path has it."""
DIGITS = re.compile(r"([0-9]+)")
MAX_NAMED_GAPS = 5
RAW_VIDEO_SUFFIXES = (".mjpg", ".mjpeg")
"""Of files that look like a JPEG picture, and are many."""


def join_list(files: Iterable[str]) -> str:
    """The name of an input that is a list of pictures."""
    return "".join(f"{file}{SEPARATOR}" for file in files)


def describe_input(name: str) -> str:
    """An input as people read it."""
    if SEPARATOR not in name:
        return name
    files = name.split(SEPARATOR)[:-1]
    return files[0] if len(files) == 1 else f"{files[0]} … {files[-1]} ({len(files)} files)"


def is_many(name: str) -> bool:
    """Whether it names many pictures. A file of that very name is none."""
    if SEPARATOR in name:
        return True
    if "://" in name or name.startswith("lavfi:"):
        return False
    path = Path(name)
    return path.is_dir() or (not path.exists() and (is_glob(name) or is_pattern(name)))


def is_glob(name: str) -> bool:
    """Whether it names all files that match it, as ``shots/*.png`` does."""
    has_wildcard = "*" in Path(name).name or "?" in Path(name).name
    return has_wildcard and "://" not in name and not name.startswith("lavfi:") and not Path(name).exists()


def glob_files(pattern: str) -> list[Path]:
    """The files that match, hidden ones left out, in natural order. A folder's name may hold brackets."""
    parent, name = Path(pattern).parent, Path(pattern).name
    if glob.has_magic(str(parent)) and not parent.is_dir():
        found = [Path(path) for path in glob.glob(pattern)]  # noqa: PTH207 - the folder is a pattern, too
    else:
        hidden = name.startswith(".")
        found = [path for path in parent.iterdir() if fnmatch.fnmatchcase(path.name, name)
                 and path.name.startswith(".") == hidden] if parent.is_dir() else []
    return sorted((path for path in found if not path.is_dir()), key=natural_key)


def folder_files(folder: str) -> list[Path]:
    """The pictures of a folder, by their names, in natural order; hidden ones and folders in it are left out."""
    return sorted((path for path in Path(folder).iterdir()
                   if path.suffix.lower() in READABLE and not path.name.startswith(".") and path.is_file()),
                  key=natural_key)


def natural_key(path: str | Path) -> tuple[object, ...]:
    """Sort so that 2 comes before 10, and ``a.JPG`` beside ``a.jpg``."""
    text = str(path)
    return (*((int(part) if number % 2 else part.casefold()) for number, part in enumerate(DIGITS.split(text))), text)


def in_natural_order(files: list[str]) -> list[str]:
    """The files as they were named; those in the order of a shell, which puts 10 before 2, in natural order."""
    for key in (str, str.casefold):
        if files == sorted(files, key=key):
            return sorted(files, key=natural_key)
    return files


def picture_files(name: str) -> list[Path]:
    """The files of an input that ``is_many``; empty for any other. Raises UsageError where there is none."""
    if not is_many(name):
        return []
    if SEPARATOR in name:
        return [Path(file) for file in name.split(SEPARATOR)[:-1]]
    if Path(name).is_dir():
        files = folder_files(name)
    elif is_glob(name):
        files = glob_files(name)
    else:
        files = [file for _, file in sorted(sequence_files(name).items())] if Path(name).parent.is_dir() else []
    if not files:
        raise UsageError(f"{name} is a folder without pictures" if Path(name).is_dir() else f"no pictures match {name}")
    return files


def describe_gaps(name: str) -> str:
    """A line on the numbers that a pattern such as ``img%04d.png`` does not find; "" where none is missing."""
    if SEPARATOR in name or is_glob(name) or Path(name).exists():
        return ""
    numbers = sorted(sequence_files(name))
    gaps = [(before + 1, after - 1) for before, after in pairwise(numbers) if after - before > 1]
    if not gaps:
        return ""
    named = [str(first) if first == last else f"{first} to {last}" for first, last in gaps[:MAX_NAMED_GAPS]]
    more = ", ..." if len(gaps) > MAX_NAMED_GAPS else ""
    return f"{name}: no picture has the number {', '.join(named)}{more}; the {len(numbers)} others follow each other"


def is_picture_input(name: str) -> bool:
    """Whether its frames are those of a ``PictureSource``: many pictures, or a file that by its content is one, or an
    animated WebP or AVIF; FFmpeg reads other animations.
    """
    if is_many(name):
        return True
    path = Path(name)
    if not path.is_file() or path.suffix.lower() in RAW_VIDEO_SUFFIXES:
        return False
    try:
        with open_picture(name) as image:
            return image.format != "GIF" and not (image.format == "PNG" and count_pictures(image, name) > 1)
    except MissingPackage:
        return True
    except StreamdreamError:
        return False


def is_video_file(name: str) -> bool:
    """Whether it is a file with streams beside its pictures, such as sound."""
    return Path(name).is_file() and not is_picture_input(name)
