"""Real pictures to measure with."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from streamdream.errors import SourceError
from streamdream.media.images import read_image
from streamdream.media.resize import resize
from streamdream.media.sample_files import PHOTO, sample_file
from streamdream.media.sources.video import open_source

from .metrics import Picture

PAN_PX = 2
"""Pixels of the photograph per frame."""


def read(path: str, frames: int, height: int, width: int, crop: bool = False) -> list[Picture]:
    """Return the first ``frames`` of a clip, scaled, or with ``crop`` first cropped to the shape of the result.

    Raises SourceError when the clip has fewer than three.
    """
    with open_source(path) as source:
        pictures = [resize(crop_to(frame.image, height, width) if crop else frame.image, height, width)
                    for frame in islice(source, frames)]
    if len(pictures) < min(3, frames):
        raise SourceError(f"{path} has {len(pictures)} frames; at least 3 are needed to measure anything")
    return pictures


def crop_to(picture: Picture, height: int, width: int) -> Picture:
    """Return the largest part in the middle of a picture that has the shape ``height`` : ``width``."""
    tall = min(picture.shape[0], round(picture.shape[1] * height / width))
    wide = min(picture.shape[1], round(picture.shape[0] * width / height))
    top, left = (picture.shape[0] - tall) // 2, (picture.shape[1] - wide) // 2
    return picture[top:top + tall, left:left + wide]


def other_shot(frames: int, height: int, width: int) -> Iterator[Picture]:
    """Yield a pan over a photograph, back and forth, as the shot after a cut."""
    photograph = read_image(str(sample_file(PHOTO)))
    crop_width = photograph.shape[1] * 3 // 4
    crop_height = min(photograph.shape[0], crop_width * height // width)
    max_left = photograph.shape[1] - crop_width
    for index in range(frames):
        left = max_left - abs(max_left - PAN_PX * index % (2 * max_left))
        yield resize(photograph[:crop_height, left:left + crop_width], height, width)
