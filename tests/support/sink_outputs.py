"""What the tests of file sinks share: writing a clip without a dream, and reading that again."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from streamdream.media.frame import Frame
from streamdream.media.sinks.base import Sink
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.prefetch import prefetch
from streamdream.media.sources.video import Source, open_source
from streamdream.settings import RenderSettings

NAMES = ["a.mp4", "a.m4v", "a.mov", "a.mkv", "a.webm", "a.avi", "a.gif", "%04d.png", "f_%d.jpg", "%d.tiff", "a.apng"]
"""One of each kind of output."""


def copy(name: str, path: Path | str, settings: RenderSettings | None = None, overwrite: bool = False,
         sound: bool = True) -> Sink:
    """Renders ``name`` to ``path`` without a dream."""
    settings = settings or RenderSettings()
    with open_source(name, settings.start, settings.duration, settings.end) as source:
        sink = open_sink(str(path), source, settings, overwrite, name if sound else None)
        with sink:
            for frame in prefetch(source):
                sink.write(frame.image, frame)
    return sink


def read(path: Path | str) -> list[Frame]:
    with open_source(str(path)) as source:
        frames = list(source)
    assert source.warnings == []
    return frames


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def noise(source: Source, sink: Sink) -> None:
    """Writes what does not compress."""
    random = np.random.default_rng(0)
    with sink:
        for frame in source:
            sink.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8), frame)
