"""Frames are read ahead in a thread."""
from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from support.clips import number_of

from streamdream.errors import SourceError
from streamdream.media.frame import Frame
from streamdream.media.sources.prefetch import prefetch
from streamdream.media.sources.video import open_source


def decoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "streamdream-decode"]


def frame(number: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), float(number), number)


def test_prefetch_gives_all_frames(clip: str) -> None:
    with open_source(clip) as source:
        assert [number_of(frame.image) for frame in prefetch(source)] == list(range(20))
    assert decoders() == []


def test_prefetch_reads_ahead_but_not_far() -> None:
    taken = []
    enough = threading.Semaphore(0)

    def source() -> Iterator[Frame]:
        for number in range(50):
            taken.append(number)
            enough.release()
            yield frame(number)

    frames = prefetch(source(), depth=3)
    assert next(frames).pts == 0
    for _ in range(4):
        assert enough.acquire(timeout=10)
    assert not enough.acquire(timeout=0.1)
    assert taken == [0, 1, 2, 3]  # one was given, three wait
    assert [frame.pts for frame in frames] == list(range(1, 50))


def test_closing_prefetch_ends_its_thread(clip: str) -> None:
    with open_source(clip) as source:
        frames = prefetch(source)
        next(frames)
        assert decoders() == ["streamdream-decode"]
        frames.close()
        assert decoders() == []


def test_prefetch_raises_what_the_source_raises() -> None:
    def source() -> Iterator[Frame]:
        yield frame(0)
        raise SourceError("the camera was unplugged")

    frames = prefetch(source())
    assert next(frames).pts == 0
    with pytest.raises(SourceError, match="unplugged"):
        next(frames)
    assert decoders() == []
