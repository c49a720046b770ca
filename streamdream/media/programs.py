"""What PyAV does not tell of a container, from the description that FFmpeg prints of it: programs and cropping."""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRAM = re.compile(r"^  Program (\d+)", re.MULTILINE)
STREAM = re.compile(r"^  Stream #0:(\d+)", re.MULTILINE)
PROGRAM_FORMATS = {"mpegts", "hls", "dash"}


def program_of(container: Any, stream: Any) -> set[int]:
    """Indices of the streams that belong together with ``stream``; all of them where the container has no programs."""
    if not PROGRAM_FORMATS & set(container.format.name.split(",")):
        return {other.index for other in container.streams}
    _, *programs = PROGRAM.split(describe(container).partition("No Program")[0])
    members = [{int(index) for index in STREAM.findall(text)} for text in programs[1::2]]
    # The streams that are listed after the last program belong to none.
    return next((members for members in members if stream.index in members),
                {other.index for other in container.streams})


def describe(container: Any) -> str:
    """FFmpeg's description, several lines; it comes through FFmpeg's log, which is off otherwise."""
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
