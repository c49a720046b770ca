"""Real pictures to measure on; what comes with gradio is used when nothing is named."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from streamdream.errors import MissingPackage, SourceError
from streamdream.media.images import read_image
from streamdream.media.resize import resize
from streamdream.media.sources.video import open_source

from .metrics import Picture

DEFAULT_CLIP = "videos/world.mp4"
"""480x270, 30 frames a second, 30 s, with sound; a turning globe before black."""
OTHER_SHOT = "images/lion.jpg"
PAN_PX = 2
"""A frame, of the photograph."""


def gradio_asset(name: str) -> str:
    """A file that comes with gradio, found without importing it (that takes two seconds). Raises MissingPackage."""
    spec = importlib.util.find_spec("gradio")
    path = Path(spec.origin).parent / "media_assets" / name if spec and spec.origin else Path(name)
    if not path.is_file():
        raise MissingPackage(f"{name} of gradio is not here: pip install gradio, or name a clip")
    return str(path)


def read(path: str, frames: int, height: int, width: int) -> list[Picture]:
    """The first ``frames`` of a clip, scaled. Raises SourceError when there are fewer than three."""
    with open_source(path) as source:
        pictures = [resize(frame.image, height, width) for frame in islice(source, frames)]
    if len(pictures) < 3:
        raise SourceError(f"{path} has {len(pictures)} frames; at least 3 are needed to measure anything")
    return pictures


def other_shot(frames: int, height: int, width: int) -> Iterator[Picture]:
    """A camera panning over a photograph, as what comes after a cut; at its end it turns back."""
    photograph = read_image(gradio_asset(OTHER_SHOT))
    tall, wide = photograph.shape[0], photograph.shape[1] * 3 // 4
    room = photograph.shape[1] - wide
    for index in range(frames):
        left = room - abs(room - PAN_PX * index % (2 * room))
        yield resize(photograph[:min(tall, wide * height // width), left:left + wide], height, width)
