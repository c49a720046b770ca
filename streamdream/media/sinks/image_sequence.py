"""Write a sequence of pictures, one file each."""
from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError
from streamdream.media.frame import Frame, Picture
from streamdream.media.images import encode_image
from streamdream.media.input_container import sequence_files
from streamdream.media.sinks.chunks import ChunkTimes
from streamdream.media.sinks.picture_format import PictureFormat
from streamdream.system.atomic_file import AtomicFile, Renames


class ImageWriter:
    """Number pictures from 1 into ``pattern`` (``frame_%04d.png``), each with ``recipe``; they appear together, when
    all are written.
    """

    def __init__(self, pattern: str, format: PictureFormat, overwrite: bool = False, recipe: str = "") -> None:
        self.warnings = list(format.warnings)
        self.bytes_written = 0
        self.kept = ""
        self._count = 0
        self._format, self._recipe = format, recipe
        self.partial = AtomicFile(pattern, folder=True, overwrite=overwrite)

    def prepare(self, image: Picture, frame: Frame) -> NDArray[Any]:
        return self._format(image)

    def write(self, item: NDArray[Any]) -> None:
        data = encode_image(item, self.partial.target.suffix, self.partial.name, recipe=self._recipe)
        path = self._hidden_path(self._count + 1)
        try:
            self.bytes_written += path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)  # it is incomplete
            raise
        self._count += 1

    def _hidden_path(self, number: int) -> Path:
        return self.partial.path / (self.partial.target.name % number)

    def complete(self) -> None:
        pass

    def commit(self) -> None:
        def renames(target: Path) -> Renames:
            numbers = range(1, self._count + 1)
            return [(self._hidden_path(number), target.with_name(target.name % number)) for number in numbers]

        target = self.partial.target
        older = set(sequence_files(str(target)).values()) - {new for _, new in renames(target)}
        self.partial.commit_files(renames)
        self.kept = f"{self._count} pictures are in {self.partial.name}"
        if older:
            self.warnings.append(f"{len(older)} older pictures of {self.partial.name} remain behind the new ones")

    def discard(self) -> None:
        self.partial.discard()

    def keep(self) -> None:
        """Name the pictures that are complete."""
        if not self.partial.path.exists():  # they are named already
            return
        try:
            self.commit()
        except SinkError as error:
            self.kept = str(error)
        except OSError:
            self.discard()


class ImageFolder:
    """A chunk of a sequence: a folder of pictures, numbered from ``first_number``, each with ``recipe``.

    It appears when it is whole.
    """

    def __init__(self, path: Path, pattern: str, first_number: int, recipe: str) -> None:
        self._folder = AtomicFile(str(path), folder=True, overwrite=True)
        self._pattern, self._number, self._recipe = Path(pattern).name, first_number, recipe
        self._pts: list[int] = []

    def add(self, picture: NDArray[Any], pts: int) -> None:
        data = encode_image(picture, Path(self._pattern).suffix, self._pattern, recipe=self._recipe)
        with (self._folder.path / (self._pattern % self._number)).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._number += 1
        self._pts.append(pts)

    def finish(self, end_pts: int) -> ChunkTimes:
        shutil.rmtree(self._folder.target, ignore_errors=True)  # of an earlier run, and damaged
        self._folder.commit_files(lambda target: [(self._folder.path, target)])
        pts = np.array(self._pts, np.int64)
        return ChunkTimes(pts, np.diff(pts, append=end_pts))

    def discard(self) -> None:
        self._folder.discard()


def join_folders(pattern: str, folders: Sequence[Path], overwrite: bool) -> list[str]:
    """Give the pictures of all chunks their names; return warnings. Raises SinkError.

    Pictures that have their name already, from a run that was killed meanwhile, may stay.
    """
    partial = AtomicFile(pattern, folder=True, overwrite=overwrite)
    target = partial.target
    pictures = {number: picture for folder in folders
                for number, picture in sequence_files(str(folder / target.name)).items()}
    older = set(sequence_files(str(target)).values()) - {target.with_name(target.name % number) for number in pictures}
    missing = {number: picture for number, picture in sorted(pictures.items())
               if not _same_bytes(picture, target.with_name(target.name % number))}
    try:
        for picture in missing.values():
            link_or_copy(picture, partial.path / picture.name)
        partial.commit_files(lambda target: [(partial.path / picture.name, target.with_name(target.name % number))
                                             for number, picture in missing.items()])
    except OSError as error:
        partial.raise_error(error)
    finally:
        partial.discard()
    return [f"{len(older)} older pictures of {pattern} remain behind the new ones"] if older else []


def _same_bytes(first: Path, second: Path) -> bool:
    return second.exists() and filecmp.cmp(first, second, shallow=False)


def link_or_copy(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(old, new)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
