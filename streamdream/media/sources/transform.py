"""Rotate, crop and mirror a live source, in that order."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SettingsError
from streamdream.media.frame import Frame

Picture = NDArray[np.uint8]
ROTATIONS: dict[str, Callable[[Picture], Picture]] = {
    "0": lambda image: image,
    "90": lambda image: np.rot90(image, -1),
    "180": lambda image: np.rot90(image, 2),
    "270": lambda image: np.rot90(image, 1),
}
"""Degrees clockwise."""
SHAPE = re.compile(r"(\d+)x(\d+)(?:\+(\d+)\+(\d+))?")


@dataclass(frozen=True)
class Region:
    """A part of a picture, in pixels from its upper left corner."""

    width: int
    height: int
    left: int = 0
    top: int = 0


def parse_region(text: str, size: tuple[int, int] | None = None) -> Region:
    """``640x480+10+20``; without an offset, in the middle of ``size`` (width, height). Raises SettingsError."""
    match = SHAPE.fullmatch(text)
    if not match or not int(match[1]) or not int(match[2]):
        raise SettingsError(f"{text!r} is no region of a picture: 640x480+10+20 is 640 wide, 480 high, 10 from the "
                            "left and 20 from the top")
    width, height = int(match[1]), int(match[2])
    if match[3] is None and size is not None:
        return Region(width, height, max(0, (size[0] - width) // 2), max(0, (size[1] - height) // 2))
    return Region(width, height, int(match[3] or 0), int(match[4] or 0))


class Transformed:
    """``source`` with each picture rotated, cropped, then mirrored. Raises SettingsError for a crop outside of it."""

    def __init__(self, source: Any, turn: str = "0", crop: str = "", mirror: bool = False) -> None:
        self._source, self._rotate, self._mirror = source, ROTATIONS[turn], mirror
        sideways = turn in ("90", "270")
        width, height = (source.height, source.width) if sideways else (source.width, source.height)
        self._region = parse_region(crop, (width, height)) if crop else Region(width, height)
        region = self._region
        if region.left + region.width > width or region.top + region.height > height:
            raise SettingsError(f"--crop is {crop!r}, but the picture is {width}x{height}")
        self.width, self.height = region.width, region.height
        self.pixel_aspect = Fraction(1) / source.pixel_aspect if sideways else source.pixel_aspect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Frame]:
        region = self._region
        rows = slice(region.top, region.top + region.height)
        columns = slice(region.left, region.left + region.width)
        for frame in self._source:
            image = self._rotate(frame.image)[rows, columns]
            yield replace(frame, image=np.ascontiguousarray(image[:, ::-1] if self._mirror else image))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()
