"""Output that several commands share."""
from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamdream.render.report import RenderReport


def log_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show_log(quiet: bool) -> None:
    """Print the log to stderr from now on, such as engine builds and backend choices; if ``quiet``, warnings only."""
    log = logging.getLogger("streamdream")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [_Lines()]
    log.propagate = False


class _Lines(logging.Handler):
    """Prints to the current ``sys.stderr``, which a progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        log_line(("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage())


def print_report(report: RenderReport, output: str, as_json: bool) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps({**report.as_json(), "output": output}))
        return
    noun = "frame" if report.frames == 1 else "frames"
    print(f"{output}: {report.frames} {noun} in {report.seconds:.1f} s ({report.fps:.1f} fps), {report.model} "
          f"{report.layers} on {report.field}, {report.backend} {report.precision} on {report.device}")


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
