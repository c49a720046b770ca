"""Write to a virtual camera, which other programs (a video call) can open."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage, SinkError
from streamdream.media.frame import Frame
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source


class VirtualCameraWriter:
    """``virtualcam``, or ``virtualcam:DEVICE``. An odd row or column is dropped: these cameras subsample
    colour. Raises MissingPackage without pyvirtualcam, SinkError where there is no such device.
    """

    bytes_written = 0
    kept = ""

    def __init__(self, name: str, source: Source) -> None:
        self.warnings: list[str] = []
        self.partial = OutputTarget(name)
        self._width, self._height = source.width & ~1, source.height & ~1
        try:
            import pyvirtualcam
        except ImportError:
            raise MissingPackage("a virtual camera needs pyvirtualcam: pip install 'streamdream[virtualcam]'") from None
        device = name.partition(":")[2] or None
        try:
            self._camera: Any = pyvirtualcam.Camera(self._width, self._height, float(source.rate), device=device)
        except RuntimeError as error:
            raise SinkError(f"there is no virtual camera here ({' '.join(str(error).split())})") from None

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        return image[: self._height, : self._width].copy()

    def write(self, item: NDArray[np.uint8]) -> None:
        self._camera.send(item)

    def complete(self) -> None:
        pass

    def commit(self) -> None:
        self._camera.close()

    def discard(self) -> None:
        self._camera.close()

    def keep(self) -> None:
        self.discard()
