"""Reference images of a dream: guide and style, whose features it imitates, and the mask that limits it.

``read`` takes them from files. A guide may also be a video: ``render.guide_video.GuideVideo``.
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
"""Larger guides are scaled down, as their features are compared with every position of the dream."""
STYLE_PIXELS = 1024 * 1024
BLACK = 8
"""Grey levels of a mask up to this count as black: a JPEG file has no pure black."""
ROLES = ("guide", "style", "mask")
File = tuple[str, str, tuple[int, int]]
"""Role, path and ``file_version``."""
log = logging.getLogger(__name__)


class Mask:
    """A mask and a cache of its scaled copies, freed with it.

    ``levels`` is uint8 [H, W], the opacity of the dream: 0 for none, 255 for all of it.
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
    """Guide, style and mask of a dream. Compared by identity, so that it can be the key of cached targets."""

    guide: Picture | None = None
    """uint8 [H, W, 3] RGB; ``style`` too."""
    style: Picture | None = None
    mask: Mask | None = None


NO_REFERENCES = References()
"""The one of dreams without any: a key of cached targets."""


def read(settings: DreamSettings) -> References:
    """Read the pictures that the settings name. Return the same object as long as the files do not change.

    Raises UsageError or SourceError, which name the flag, for a file that is absent or not a picture.
    """
    return _read(tuple((role, path, file_version(role, path)) for role, path in _paths_of(settings).items()))


def _paths_of(settings: DreamSettings) -> dict[str, str]:
    """Return role -> path."""
    return {role: getattr(settings, role) for role in ROLES if getattr(settings, role)}


def file_version(role: str, path: str) -> tuple[int, int]:
    """Return (modification time in ns, size in bytes). Raises UsageError when there is no such file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UsageError(f"--{role} {path}: {error.strerror}") from None
    return status.st_mtime_ns, status.st_size


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
    """Reads the references of a live run, whose files may change, vanish or be half written.

    Such a file is replaced with the last valid picture of its role, with one warning in the log, until it can be read
    again. Not thread-safe.
    """

    def __init__(self) -> None:
        self._files: list[File | tuple[str, str, str]] | None = None
        self._references = References()
        self._failed: set[tuple[str, str]] = set()

    def read(self, settings: DreamSettings) -> References:
        """Read the pictures that the settings name. Return the same object as long as the files do not change.

        Raises UsageError or SourceError when there is no last valid picture. After the first call a mask does not need
        one: without a mask all of the frame is dreamed.
        """
        files = [_file_or_error(role, path) for role, path in _paths_of(settings).items()]
        if files != self._files:
            pictures = {file[0]: self._read_file(file) for file in files}
            if any(pictures.get(role) is not getattr(self._references, role) for role in ROLES):
                self._references = References(**pictures)  # type: ignore[arg-type]
            self._files = files
        return self._references

    def _read_file(self, file: File | tuple[str, str, str]) -> Picture | Mask | None:
        role, path, version = file
        try:
            if isinstance(version, str):
                raise UsageError(version)
            picture = _read_file((role, path, version))
        except StreamdreamError as error:
            last: Picture | Mask | None = getattr(self._references, role)
            if last is None and (role != "mask" or self._files is None):
                raise
            if (role, path) not in self._failed:
                log.warning("%s; the run goes on %s", error, "without it" if last is None else "with the last one")
            self._failed.add((role, path))
            return last
        self._failed.discard((role, path))
        return picture


def _file_or_error(role: str, path: str) -> File | tuple[str, str, str]:
    """Return role, path and version of a file, or the text of an error in place of the version."""
    try:
        return role, path, file_version(role, path)
    except UsageError as error:
        return role, path, str(error)


def _to_mask(image: Picture) -> Mask:
    grey: Picture = cv2().cvtColor(image, cv2().COLOR_RGB2GRAY)
    return Mask(np.where(grey > BLACK, grey, np.uint8(0)))


def for_octave(references: References, height: int, width: int, min_side: int) -> dict[str, Picture]:
    """Scale guide and style to the sizes at which their features are computed for a ``height`` x ``width`` octave.

    A guide has the same size for all octaves, as in Google's notebook; a style has the octave's area, so that its
    strokes keep their size relative to the picture. ``min_side`` is the shortest side that the taps allow.
    """
    pictures = {}
    if references.guide is not None:
        pictures["guide"] = _scale(references.guide, min(1.0, _ratio(references.guide, GUIDE_PIXELS)), min_side)
    if references.style is not None:
        ratio = _ratio(references.style, min(height * width, STYLE_PIXELS))
        pictures["style"] = _scale(references.style, ratio, min_side)
    return pictures


def _ratio(picture: Picture, pixels: int) -> float:
    """Return the scale at which a picture has that many pixels."""
    return math.sqrt(pixels / (picture.shape[0] * picture.shape[1]))


def _scale(picture: Picture, scale: float, min_side: int) -> Picture:
    scale = max(scale, min_side / min(picture.shape[:2]))
    height, width = (max(min_side, round(side * scale)) for side in picture.shape[:2])
    return resize(picture, height, width)


def mask_weights(references: References, height: int, width: int) -> NDArray[np.float32] | None:
    """Return the opacity of the dream at each pixel: [height, width, 1] in 0..1; None without a mask."""
    return None if references.mask is None else references.mask.weights(height, width)


def mask_support(references: References, height: int, width: int) -> NDArray[np.float32] | None:
    """Return the pixels to dream: [height, width, 1], 1 where the mask is not black, else 0; None without a mask."""
    return None if references.mask is None else references.mask.support(height, width)
