"""A sequence of pictures, one file each."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError
from streamdream.frame import Frame
from streamdream.passthrough import pictures_of
from streamdream.sinks.threaded import Partial

SUFFIXES = (".png", ".jpg", ".jpeg")
JPEG_QUALITY = 95
PNG_EFFORT = 3
"""Of 0..9; more costs much time for little space."""


class ImageWriter:
    """Numbers pictures from 1 into ``pattern`` (``frame_%04d.png``); they appear together, when all are written."""

    def __init__(self, pattern: str) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0
        self._count = 0
        self.partial = Partial(pattern, folder=True)

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        return image[..., ::-1].copy()  # OpenCV wants BGR

    def write(self, item: NDArray[np.uint8]) -> None:
        import cv2

        target = self.partial.target
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT]
        done, data = cv2.imencode(target.suffix.lower(), item, quality)
        if not done:
            raise SinkError(f"{self.partial.name}: a picture could not be encoded")
        path = self.partial.path / (target.name % (self._count + 1))
        try:
            self.bytes_written += path.write_bytes(data.tobytes())
        except OSError:
            path.unlink(missing_ok=True)  # half of one
            raise
        self._count += 1

    def complete(self) -> None:
        pass

    def commit(self) -> None:
        folder = self.partial.target.parent
        ours = sorted(self.partial.path.iterdir())
        older = set(pictures_of(str(self.partial.target)).values()) - {folder / path.name for path in ours}
        for path in ours:
            path.replace(folder / path.name)
        self.partial.discard()
        if older:
            self.warnings.append(f"{len(older)} older pictures of {self.partial.name} remain behind the new ones")

    def discard(self) -> None:
        self.partial.discard()

    def keep(self) -> None:
        """Those that are whole."""
        try:
            self.commit()
        except (OSError, SinkError):
            self.discard()

    @property
    def kept(self) -> str:
        found = len(pictures_of(self.partial.name))
        return f"{found} pictures are in {self.partial.name}" if found else ""
