"""Real pictures to measure on; what comes with gradio is used when nothing is named."""
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
"""A frame, of the photograph."""


def read(path: str, frames: int, height: int, width: int) -> list[Picture]:
    """The first ``frames`` of a clip, scaled. Raises SourceError when there are fewer than three."""
    with open_source(path) as source:
        pictures = [resize(frame.image, height, width) for frame in islice(source, frames)]
    if len(pictures) < 3:
        raise SourceError(f"{path} has {len(pictures)} frames; at least 3 are needed to measure anything")
    return pictures


def other_shot(frames: int, height: int, width: int) -> Iterator[Picture]:
    """A camera panning over a photograph, as what comes after a cut; at its end it turns back."""
    photograph = read_image(str(sample_file(PHOTO)))
    tall, wide = photograph.shape[0], photograph.shape[1] * 3 // 4
    room = photograph.shape[1] - wide
    for index in range(frames):
        left = room - abs(room - PAN_PX * index % (2 * room))
        yield resize(photograph[:min(tall, wide * height // width), left:left + wide], height, width)
