"""How far a run is: a bar with speed and time left on a terminal, a plain line now and then in a log."""
from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Reports to stderr; ``update`` takes the number of things done and costs next to nothing.

    ``total`` 0 means unknown; ``unit`` is "frames" or "steps".
    """

    def __init__(self, title: str, total: int, unit: str, quiet: bool = False) -> None:
        self._title, self._total, self._unit, self._quiet = title, total, unit, quiet
        self._bar: Any = None
        self._began = self._reported = time.monotonic()

    def __enter__(self) -> Progress:
        if self._quiet:
            return self
        if sys.stderr.isatty():
            self._bar = _make_bar(self._unit)
            self._task = self._bar.add_task(self._title, total=self._total or None, speed="")
            self._bar.start()
        else:
            sys.stderr.write(f"{self._title}\n")
            sys.stderr.flush()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if done == 1:  # speed counts from here: before it lies the loading
            self._began, self._first = now, done
        speed = (done - 1) / (now - self._began) if done > 1 else 0.0
        if self._bar:
            self._bar.update(self._task, completed=done, speed=f"{speed:.1f} {self._unit}/s" if speed else "")
        elif now - self._reported >= SECONDS_BETWEEN_LINES:
            self._reported = now
            sys.stderr.write(self._line(done, speed) + "\n")
            sys.stderr.flush()

    def _line(self, done: int, speed: float) -> str:
        of = f" of {self._total}" if self._total else ""
        left = f", {max(0, self._total - done) / speed:.0f} s left" if self._total and speed else ""
        return f"{done}{of} {self._unit}, {speed:.1f} {self._unit}/s{left}"


def _make_bar(unit: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
               TextColumn("{task.fields[speed]}"), TimeRemainingColumn(), TextColumn("left"),
               console=Console(stderr=True))
