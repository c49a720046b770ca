"""The standard output as an output: ``-o -``."""
from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from streamdream.errors import SinkError, UnknownName, UsageError
from streamdream.media.sinks.encoders import PIPES
from streamdream.system.atomic_file import OutputTarget

PREFIX = "pipe:"
STDOUT = 1


def pipe_name(container: str = "") -> str:
    """The name of the standard output with a container, such as ``pipe:nut``. Raises UnknownName."""
    known = [suffix.removeprefix(".") for suffix in PIPES]
    name = container.removeprefix(".").lower() or known[0]
    if name not in known:
        raise UnknownName("container for the standard output", container, known)
    return PREFIX + name


def is_pipe(name: str) -> bool:
    return name.startswith(PREFIX) and "." + name.removeprefix(PREFIX) in PIPES


def check_pipe() -> None:
    """Raise UsageError where the standard output is a terminal."""
    with contextlib.suppress(OSError):
        if os.isatty(STDOUT):
            raise UsageError("-o - writes to the standard output, which is a terminal; add | PROGRAM, or > FILE")


class ReaderEnded(SinkError):
    """The exit code is that of all commands for a closed pipe."""

    exit_code = 141


class StandardOutput(OutputTarget):
    """A file that FFmpeg writes to. ``name`` is that of ``pipe_name``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.target = Path("-." + name.removeprefix(PREFIX))
        self.path = self.target
        self.size = 0
        self._file = os.dup(STDOUT)
        if sys.platform == "win32":
            import msvcrt

            msvcrt.setmode(self._file, os.O_BINARY)

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest):]
        self.size += len(data)
        return len(data)

    def commit(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self.commit()

    def _describe_error(self, error: BaseException) -> SinkError:
        if isinstance(error, BrokenPipeError):
            return ReaderEnded("the program that reads the standard output has ended")
        return super()._describe_error(error)
