"""Output that several commands share."""
from __future__ import annotations

import contextlib
import errno
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from streamdream.errors import StreamdreamError, error_text

if TYPE_CHECKING:
    from streamdream.render.report import RenderReport

MISTAKES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""System errors about a path that the user named."""
MAX_LINE = 2000
"""Characters of a line on stderr."""


def log_line(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def printable(line: str) -> str:
    """``line`` without what a hostile file may have put into it: control characters of terminals, a page of text."""
    line = "".join(letter if letter.isprintable() or letter in "\t\n" else repr(letter)[1:-1] for letter in line)
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE // 2]} [...] {line[-MAX_LINE // 2:]}"


def show_log(quiet: bool) -> None:
    """Print the log to stderr from now on, such as engine builds and backend choices; if ``quiet``, warnings only."""
    log = logging.getLogger("streamdream")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [_Lines()]
    log.propagate = False


class _Lines(logging.Handler):
    """Prints to the current ``sys.stderr``, which a progress bar replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: set[str] = set()
        """Those that were printed."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.warnings.add(message)
            message = f"warning: {message}"
        log_line(message)


def print_report(report: RenderReport, input: str, output: str, as_json: bool) -> None:
    print_warnings(report)
    if as_json:
        print(json.dumps({**report.as_json(), "input": input, "output": output}))
        return
    noun = "frame" if report.frames == 1 else "frames"
    print(f"{output}: {report.frames} {noun} in {report.seconds:.1f} s ({report.fps:.1f} fps), {report.model} "
          f"{report.layers} on {report.field}, {report.backend} {report.precision} on {report.device}")


def print_warnings(report: RenderReport) -> None:
    """Print those that were not said before the run."""
    handlers = logging.getLogger("streamdream").handlers
    said = {text for handler in handlers if isinstance(handler, _Lines) for text in handler.warnings}
    for warning in report.warnings:
        if warning not in said:
            log_line(f"warning: {warning}")


def print_error(message: str) -> None:
    """Print it as one line."""
    with contextlib.suppress(OSError):  # a closed terminal
        log_line("error: " + " ".join(message.split()))


def describe_error(error: Exception) -> tuple[str, int]:
    """A line, and the exit code."""
    if isinstance(error, StreamdreamError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error_text(error)}", 2 if error.errno in MISTAKES else 1
    return f"unexpected {type(error).__name__}: {error}; --debug shows where, please report it", 1


def warn_of_older_files(output: str, started: float) -> None:
    """Warn if a numbered sequence has files from before ``started``, a ``time.time()``."""
    from streamdream.media.input_container import is_pattern, sequence_files

    files = sequence_files(output) if is_pattern(output) else {}
    older = [path for _, path in sorted(files.items()) if path.stat().st_mtime < started]
    if older:
        log_line(f"warning: {len(older)} older files of {output} remain, from {older[0]} on")


def print_table(rows: list[dict[str, Any]]) -> None:
    widths = {key: max(len(str(key)), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in rows[0]}, *rows]:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())
