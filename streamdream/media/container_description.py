"""What PyAV does not tell of a container, from the description that FFmpeg prints of it: programs and cropping."""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRAM = re.compile(r"^  (?:Program \d+|No Program)", re.MULTILINE)
STREAM = re.compile(r"^  Stream #0:(\d+)", re.MULTILINE)
CROPPING = re.compile(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)")
PROGRAM_FORMATS = {"mpegts", "hls", "dash"}
NETWORK_FORMATS = {"hls", "dash"}
"""Formats that fetch each stream on its own: one that is discarded is not fetched."""
CROPPING_FORMATS = {"mov", "matroska"}
"""Formats that can say which part of the stored picture is to be shown (``clap``, PixelCrop)."""


def program_of(container: Any, stream: Any) -> set[int]:
    """Indices of the streams that belong together with ``stream``; all of them where the container has no programs."""
    everything = {other.index for other in container.streams}
    if len(container.streams.video) < 2 or not PROGRAM_FORMATS & set(container.format.name.split(",")):
        return everything
    programs = [{int(index) for index in STREAM.findall(text)} for text in PROGRAM.split(_describe(container))[1:]]
    return next((members for members in programs if stream.index in members), everything)


def fetch_only(container: Any, stream: Any) -> bool:
    """Fetch no other stream over the network; return False where the container brings all of them anyway."""
    from av.stream import Discard

    if not NETWORK_FORMATS & set(container.format.name.split(",")):
        return False
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return True


def cropping_of(container: Any, stream: Any) -> tuple[int, int, int, int] | None:
    """Columns and rows that are not shown: left, right, top, bottom; None where all are."""
    if not CROPPING_FORMATS & set(container.format.name.split(",")):
        return None
    _, *parts = STREAM.split(_describe(container))
    text = dict(zip(parts[::2], parts[1::2], strict=True)).get(str(stream.index), "")
    found = CROPPING.search(text)
    return (int(found[1]), int(found[2]), int(found[3]), int(found[4])) if found else None


def _describe(container: Any) -> str:
    """Several lines, which come through FFmpeg's log; it is off otherwise."""
    with _info_log():
        return str(container.dumps_format())


@contextmanager
def _info_log() -> Iterator[None]:
    from av import logging

    level = logging.get_level()
    logging.set_level(logging.INFO)
    try:
        yield
    finally:
        logging.set_level(level)
