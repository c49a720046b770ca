"""Videos and pictures to try, for visitors without a file at hand. NOTICE names their authors and licences."""
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import streamdream

from ..core.assets import ASSETS
from .file_inspection import InspectionLimits, MediaInfo, inspect_video

FOLDER = ASSETS / "examples"


@dataclass(frozen=True)
class Example:
    """A file of ours. ``name`` is that of its route, its thumbnail and its title in ``strings.js``."""

    name: str
    path: Path

    @property
    def file_name(self) -> str:
        return self.name + self.path.suffix

    @property
    def is_video(self) -> bool:
        return self.path.suffix == ".mp4"

    @property
    def thumbnail(self) -> str:
        """Path of a WebP picture in the folder of assets."""
        return f"examples/{self.name}.webp"

    @cached_property
    def facts(self) -> MediaInfo:
        if self.is_video:
            return inspect_video(self.path, self.path.suffix, InspectionLimits(math.inf, 60, 1 << 30))
        from streamdream.media.picture_decoder import open_picture

        with open_picture(self.path) as picture:
            return MediaInfo(self.path.suffix, *picture.size)

    def fits(self, limits: InspectionLimits) -> bool:
        """Return whether a visitor could upload it."""
        facts = self.facts
        return (facts.width * facts.height <= limits.pixels and facts.seconds <= limits.seconds
                and self.path.stat().st_size <= limits.megabytes * 1e6)


@cache
def everything() -> tuple[Example, ...]:
    """Return all examples, in the order in which they are shown."""
    valley = Path(streamdream.__file__).parent / "clips" / "valley.mp4"
    files = {"meadow": FOLDER / "meadow.mp4", "valley": valley, "earth": FOLDER / "earth.mp4",
             "pavilion": FOLDER / "pavilion.jpg", "dahlia": FOLDER / "dahlia.jpg",
             "cat": FOLDER / "cat.jpg"}
    return tuple(Example(name, path) for name, path in files.items())


def find(name: str) -> Example | None:
    return next((example for example in everything() if example.name == name), None)


def offered(is_video: bool, limits: InspectionLimits) -> list[Example]:
    """Return the videos, or pictures, that a visitor could also upload."""
    return [example for example in everything() if example.is_video is is_video and example.fits(limits)]
