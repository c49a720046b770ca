"""A window on the screen."""
from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import Closed, MissingPackage, SinkError
from streamdream.frame import Frame
from streamdream.opencv import cv2
from streamdream.sinks.threaded import Managed

TITLE = "streamdream"
ESCAPE = 27
QUIT = {ESCAPE, ord("q")}


class WindowSink(Managed):
    """Shows pictures at once; ``q``, Escape or closing it raises Closed, ``f`` is full screen.

    Raises SinkError where there is no display, MissingPackage where OpenCV has no windows. Must be used in the main
    thread.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError("there is no display here for a window; --sink null, or --sink out.mp4 to record")
        try:
            cv2().namedWindow(TITLE, cv2().WINDOW_NORMAL)
        except cv2().error:
            raise MissingPackage("this OpenCV has no windows: pip uninstall -y opencv-python-headless && pip install "
                                 "--force-reinstall opencv-python") from None
        self._full = False

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        cv = cv2()
        cv.imshow(TITLE, image[..., ::-1])
        key = cv.waitKey(1) & 0xFF
        if key in QUIT or self._is_closed(cv):
            raise Closed("the window was closed")
        if key == ord("f"):
            self._full = not self._full
            cv.setWindowProperty(TITLE, cv.WND_PROP_FULLSCREEN,
                                 cv.WINDOW_FULLSCREEN if self._full else cv.WINDOW_NORMAL)

    def _is_closed(self, cv: Any) -> bool:
        return bool(cv.getWindowProperty(TITLE, cv.WND_PROP_VISIBLE) < 1)

    def finish(self) -> None:
        cv2().destroyAllWindows()

    def abort(self) -> None:
        self.finish()
