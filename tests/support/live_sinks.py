"""Open a live sink without a source, write numbered pictures to it, read their numbers back."""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from streamdream.automation.controls import Controls
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import LiveContext
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.settings import DreamSettings, RenderSettings
from support.clips import marked, number_of
from support.live_runs import SIZE

GRAPH = "lavfi:testsrc2=size=320x180:rate=30"


class Camera(LiveSource):
    """What sinks need to know of a source."""

    def __init__(self, rate: int = 30) -> None:
        super().__init__("camera")
        self.width, self.height, self.rate = *SIZE, Fraction(rate)

    def __iter__(self) -> Iterator[Frame]:
        return iter(())


def live_context() -> LiveContext:
    return LiveContext(Controls(DreamSettings()), lambda: get("inception_v3").blocks())


def live_sink(path: str, **settings: Any) -> Any:
    return open_sink(path, Camera(), RenderSettings(**settings), show=live_context())


def numbers_in(path: Path | str) -> list[int]:
    file: Any
    with av.open(str(path)) as file:
        return [number_of(picture.to_ndarray(format="rgb24")) for picture in file.decode(video=0)]


def readable_frames(path: Path) -> int:
    """Return how many frames can be decoded of a file that may not be there yet."""
    file: Any
    try:
        with av.open(str(path)) as file:
            return sum(1 for _ in file.decode(video=0))
    except (av.FFmpegError, IndexError):  # nothing is in it yet
        return 0


def write(sink: Any, count: int) -> None:
    for number in range(count):
        sink.write(marked(number, SIZE), timestamped_frame(marked(number, SIZE), number / 30))


def wait_for_line(stream: Any, words: str) -> None:
    said = []
    while words not in (line := stream.readline()):
        said.append(line)
        assert line, f"it ended before it said {words!r}: {said}"
