"""``--progress``: how far a render is, as blocks of lines ``key=value`` like those of ``ffmpeg -progress``."""
from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TextIO

from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import log_line
from streamdream.errors import error_text

INTERVAL_SECONDS = 0.5
PIPES = {"pipe:1": "stdout", "pipe:2": "stderr"}


def add_progress_flag(parser: Parser) -> None:
    parser.advanced.append(parser.add_argument(
        "--progress", default="", metavar="TARGET", help="write progress as ffmpeg does, to pipe:1 (stdout), pipe:2 "
                                                         "(stderr) or the end of a file"))


class ProgressBlocks:
    """Writes a block every half second, and one with ``progress=end`` for each file. ``target`` "" is none.

    Once a block cannot be written, a warning says so, and no more are written. Raises OSError when the file cannot be
    opened.
    """

    def __init__(self, target: str) -> None:
        self._target, self._input = target, ""
        self._start_seconds = 0.0
        self._file: TextIO | None = None

    def __enter__(self) -> ProgressBlocks:
        if self._target in PIPES:
            self._file = getattr(sys, PIPES[self._target])
        elif self._target:
            self._file = open(self._target, "a", encoding="utf-8")  # noqa: PTH123
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._close()

    def begin(self, name: str, rate: float, done_frames: int) -> None:
        """A file begins, of ``rate`` frames per second; ``done_frames`` are there from before."""
        self._input, self._rate, self._first, self._done = name, rate, done_frames, done_frames
        self._start_seconds = self._written = time.monotonic()

    def frame(self, done_frames: int) -> None:
        self._done = done_frames
        if self._file is not None and time.monotonic() - self._written >= INTERVAL_SECONDS:
            self._write("continue")

    def end(self) -> None:
        """The file ends, if one has begun."""
        if self._input:
            self._write("end")
            self._input = ""

    def resume(self, paused_seconds: float) -> None:
        """Leave these seconds out of the speed."""
        self._start_seconds += paused_seconds

    def _close(self) -> None:
        if self._file is not None and self._target not in PIPES:
            with contextlib.suppress(OSError):  # what could not be written is still in its buffer
                self._file.close()
        self._file = None

    def _write(self, state: str) -> None:
        if self._file is None:
            return
        self._written = time.monotonic()
        fps = (self._done - self._first) / max(self._written - self._start_seconds, 1e-6)
        microseconds = round(self._done / self._rate * 1e6)
        whole, fraction = divmod(microseconds, 1_000_000)
        values = {"input": self._input, "frame": self._done, "fps": f"{fps:.2f}", "out_time_us": microseconds,
                  "out_time": f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{fraction:06}",
                  "speed": f"{fps / self._rate:.3g}x", "progress": state}
        try:
            self._file.write("".join(f"{key}={value}\n" for key, value in values.items()))
            self._file.flush()
        except (OSError, ValueError) as error:
            self._close()
            log_line(f"warning: --progress {self._target} is not written any more: {error_text(error)}")
