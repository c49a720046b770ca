"""Draw text on the picture in the window: speed, settings, and the keys."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2

MIN_TEXT_LINES = 480
"""A smaller picture is enlarged before text is drawn."""
LINE = 26
"""Height of a text line in a picture of 720 lines; all else is in proportion."""
SIZE = 34
"""Pixels of a line at OpenCV's scale 1."""
THICKNESS = 2
WHITE = (255, 255, 255)


def upscale_for_text(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy, enlarged when it is too small for text."""
    factor = -(-MIN_TEXT_LINES // image.shape[0])
    if factor <= 1:
        return image.copy()
    return cv2().resize(image, None, fx=factor, fy=factor, interpolation=cv2().INTER_NEAREST)  # type: ignore[no-any-return]


def write_line(image: NDArray[np.uint8], text: str, bottom: bool = False) -> None:
    """One line at the upper or lower left, on a darkened background."""
    unit = image.shape[0] / 720
    line = round(1.5 * LINE * unit)
    (width, _), _ = cv2().getTextSize(text, cv2().FONT_HERSHEY_SIMPLEX, LINE * unit / SIZE, THICKNESS)
    top = image.shape[0] - line if bottom else 0
    _darken(image[top: top + line, : width + round(LINE * unit)])
    _put(image, text, round(0.5 * LINE * unit), top + round(1.1 * LINE * unit), unit)


def write_table(image: NDArray[np.uint8], rows: Sequence[tuple[str, str]]) -> None:
    """Keys and their actions, on a darkened background in the middle."""
    unit = image.shape[0] / 720
    line = LINE * unit * 1.25
    width, height = round(25 * LINE * unit), round((len(rows) + 1) * line)
    left, top = max(0, (image.shape[1] - width) // 2), max(0, (image.shape[0] - height) // 2)
    _darken(image[top: top + height, left: left + width])
    for number, (key, about) in enumerate(rows):
        y = round(top + (number + 1) * line)
        _put(image, key, round(left + LINE * unit), y, unit)
        _put(image, about, round(left + 6 * LINE * unit), y, unit)


def _darken(region: NDArray[np.uint8]) -> None:
    region[:] = region // 4


def _put(image: NDArray[np.uint8], text: str, x: int, y: int, unit: float) -> None:
    cv2().putText(image, text, (x, y), cv2().FONT_HERSHEY_SIMPLEX, LINE * unit / SIZE, WHITE, THICKNESS, cv2().LINE_AA)
