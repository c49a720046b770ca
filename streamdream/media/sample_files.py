"""A photograph and clips to try things on: one of our own, and those that come with gradio."""
from __future__ import annotations

import importlib.util
from pathlib import Path

from streamdream.errors import MissingPackage

EXAMPLE_CLIP = Path(__file__).parents[1] / "clips" / "valley.mp4"
"""480x270, 30 frames a second, 5 s, H.264, 0.2 MB, computed for this package: clouds over a valley and a lake."""
PHOTO = "images/lion.jpg"
"""256x256."""
CLIP = "videos/world.mp4"
"""480x270, 30 frames a second, 30 s, with sound; a turning globe before black."""


def sample_file(name: str) -> Path:
    """The path of PHOTO or CLIP, found without importing gradio (that takes two seconds). Raises MissingPackage."""
    spec = importlib.util.find_spec("gradio")
    path = Path(spec.origin).parent / "media_assets" / name if spec and spec.origin else Path(name)
    if not path.is_file():
        raise MissingPackage(f"{name} of gradio is not here: pip install gradio, or name a file")
    return path
