"""Other pictures that a dream looks at: a guide and a style to dream toward, a mask that says where.

``read`` takes them from files. A guide may also be a second source that plays beside the first: ``Player``.
"""
from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import StreamdreamError, UsageError
from streamdream.media import images
from streamdream.media.opencv import cv2
from streamdream.media.resize import resize

if TYPE_CHECKING:
    from streamdream.settings import DreamSettings

Picture = NDArray[np.uint8]

GUIDE_PIXELS = 320 * 240
"""A larger guide is scaled down: its features are compared with every position of the dream."""
STYLE_PIXELS = 1024 * 1024
BLACK = 8
"""Grey levels of a mask up to this are black: a JPEG file has no pure one."""
ROLES = ("guide", "style", "mask")
File = tuple[str, str, tuple[int, int]]
"""Role, path, and what changes when the file does."""
log = logging.getLogger(__name__)


class Mask:
    """Where to dream, and its copies at other sizes, which go with it. ``levels`` uint8 [H, W]: 0 is left alone, 255 is
    dreamed, grey shows the dream by that much.
    """

    def __init__(self, levels: Picture) -> None:
        self.levels = levels
        self.weights = lru_cache(maxsize=16)(partial(_weights, levels))
        """(height, width) -> float32 [height, width, 1] in 0..1."""
        self.support = lru_cache(maxsize=16)(partial(_support, levels))
        """(height, width) -> float32 [height, width, 1]: 1 where the mask is not black, else 0."""


def _weights(levels: Picture, height: int, width: int) -> NDArray[np.float32]:
    return resize(levels, height, width).astype(np.float32)[..., None] / np.float32(255)


def _support(levels: Picture, height: int, width: int) -> NDArray[np.float32]:
    return (resize(levels, height, width) > BLACK).astype(np.float32)[..., None]


@dataclass(frozen=True, eq=False)
class References:
    """Guide, style and mask of a dream. Compared by identity, so that targets made of them can be cached."""

    guide: Picture | None = None
    """uint8 [H, W, 3] RGB, as is ``style``."""
    style: Picture | None = None
    mask: Mask | None = None


def read(settings: DreamSettings) -> References:
    """The pictures that the settings name; the same object as long as the files do not change.

    Raises UsageError or SourceError, naming the flag, for a file that is not there or not a picture.
    """
    return _read(tuple((role, path, file_version(role, path)) for role, path in _named_in(settings).items()))


def _named_in(settings: DreamSettings) -> dict[str, str]:
    """Role -> path."""
    return {role: getattr(settings, role) for role in ROLES if getattr(settings, role)}


def file_version(role: str, path: str) -> tuple[int, int]:
    """(time of the last change in ns, size in bytes)."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise UsageError(f"--{role} {path}: {error.strerror}") from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _read(files: tuple[File, ...]) -> References:
    return References(**{file[0]: _read_file(file) for file in files})  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _read_file(file: File) -> Picture | Mask:
    role, path, _ = file
    try:
        image = images.read_image(path)
    except StreamdreamError as error:
        raise type(error)(f"--{role}: {error}") from None
    return _to_mask(image) if role == "mask" else image


class LiveReader:
    """References of a live run. Its files may change, vanish or be half written: then the last good picture of that
    role is kept, with one warning in the log, until the file can be read again. For one thread.
    """

    def __init__(self) -> None:
        self._seen: list[File | tuple[str, str, str]] | None = None
        self._references = References()
        self._failed: set[tuple[str, str]] = set()

    def read(self, settings: DreamSettings) -> References:
        """The pictures that the settings name; the same object as long as the files do not change.

        Raises UsageError or SourceError where there is no last good picture: at the first call, and for a guide or a
        style, without which there is nothing to dream toward. Without a mask all is dreamed.
        """
        seen = [_look_at(role, path) for role, path in _named_in(settings).items()]
        if seen != self._seen:
            pictures = {file[0]: self._read_file(file) for file in seen}
            if any(pictures.get(role) is not getattr(self._references, role) for role in ROLES):
                self._references = References(**pictures)  # type: ignore[arg-type]
            self._seen = seen
        return self._references

    def _read_file(self, file: File | tuple[str, str, str]) -> Picture | Mask | None:
        role, path, version = file
        try:
            if isinstance(version, str):
                raise UsageError(version)
            picture = _read_file((role, path, version))
        except StreamdreamError as error:
            last: Picture | Mask | None = getattr(self._references, role)
            if last is None and (role != "mask" or self._seen is None):
                raise
            if (role, path) not in self._failed:
                log.warning("%s; it goes on %s", error, "without it" if last is None else "with the last one")
            self._failed.add((role, path))
            return last
        self._failed.discard((role, path))
        return picture


def _look_at(role: str, path: str) -> File | tuple[str, str, str]:
    """The file's version, or as text why there is none."""
    try:
        return role, path, file_version(role, path)
    except UsageError as error:
        return role, path, str(error)


def _to_mask(image: Picture) -> Mask:
    grey: Picture = cv2().cvtColor(image, cv2().COLOR_RGB2GRAY)
    return Mask(np.where(grey > BLACK, grey, np.uint8(0)))


def for_octave(references: References, height: int, width: int, least: int) -> dict[str, Picture]:
    """Guide and style at the sizes at which their features are taken for a ``height`` x ``width`` octave.

    A guide is the same for all octaves, as in Google's notebook; a style has the octave's area, so that its strokes
    keep their size within the picture. ``least`` is the shortest side that the taps allow.
    """
    found = {}
    if references.guide is not None:
        found["guide"] = _fit(references.guide, min(1.0, _ratio(references.guide, GUIDE_PIXELS)), least)
    if references.style is not None:
        found["style"] = _fit(references.style, _ratio(references.style, min(height * width, STYLE_PIXELS)), least)
    return found


def _ratio(picture: Picture, pixels: int) -> float:
    return math.sqrt(pixels / (picture.shape[0] * picture.shape[1]))


def _fit(picture: Picture, scale: float, least: int) -> Picture:
    scale = max(scale, least / min(picture.shape[:2]))
    return resize(picture, max(least, round(picture.shape[0] * scale)), max(least, round(picture.shape[1] * scale)))


def mask_weights(references: References, height: int, width: int) -> NDArray[np.float32] | None:
    """How much of the dream the mask shows: [height, width, 1] in 0..1; None without a mask."""
    return None if references.mask is None else references.mask.weights(height, width)


def mask_support(references: References, height: int, width: int) -> NDArray[np.float32] | None:
    """Where it may be dreamed: [height, width, 1], 1 where the mask is not black, else 0; None without a mask."""
    return None if references.mask is None else references.mask.support(height, width)


