"""Read a video from the standard input or from a named pipe: once, from its beginning to its end."""
from __future__ import annotations

import io
import os
import stat
from typing import Any

from streamdream.errors import SourceError, UsageError, error_text
from streamdream.media.input_container import SAFE_FORMATS, open_container

STDIN = "-"


def is_pipe(name: str) -> bool:
    """Whether it is ``-`` or a pipe, a terminal or another device that cannot be read again."""
    if name == STDIN:
        return True
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - a name may hold what no path can
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def open_pipe(name: str) -> Any:
    """An av container; it waits until something comes. Raises SourceError, and UsageError for a terminal."""
    text = "the standard input" if name == STDIN else name
    try:
        stream = _Stream(0 if name == STDIN else os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
        if os.isatty(stream.descriptor):
            raise UsageError(f"{text} is a terminal: send a video into it, as in "
                             f"'ffmpeg -i a.mov -f nut -c copy - | streamdream render - -o b.mp4'")
        is_file = stat.S_ISREG(os.fstat(stream.descriptor).st_mode)
    except OSError as error:
        raise SourceError(f"{text} cannot be read: {error_text(error)}") from None
    # A redirected file can be sought in while it is opened, which an mp4 with its index at the end needs.
    target: Any = io.FileIO(stream.descriptor, closefd=False) if is_file else stream
    return open_container(target, f"{text} is empty, damaged, or not a video",
                          options={"format_whitelist": SAFE_FORMATS})


class _Stream:
    """A pipe as PyAV reads it: without ``seek``. Python reads it, so that a signal is heard while nothing comes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, size: int) -> bytes:
        try:
            return os.read(self.descriptor, size)
        except OSError:  # a device that only looks like one that can be read
            return b""

    def __del__(self) -> None:
        if self.descriptor:
            os.close(self.descriptor)
