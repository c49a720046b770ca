"""Write a sequence of pictures, one file each."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError
from streamdream.media.container import sequence_files
from streamdream.media.frame import Frame
from streamdream.media.images import encode_image
from streamdream.system.atomic_file import AtomicFile, Renames


class ImageWriter:
    """Number pictures from 1 into ``pattern`` (``frame_%04d.png``); they appear together, when all are written."""

    def __init__(self, pattern: str, overwrite: bool = False) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0
        self.kept = ""
        self._count = 0
        self.partial = AtomicFile(pattern, folder=True, overwrite=overwrite)

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        return image[..., ::-1].copy()  # OpenCV takes BGR

    def write(self, item: NDArray[np.uint8]) -> None:
        data = encode_image(item, self.partial.target.suffix, self.partial.name)
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
