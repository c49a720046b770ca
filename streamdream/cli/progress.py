"""Progress of a run: a bar with speed and remaining time on a terminal, plain lines in a log."""
from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from streamdream.cli import signals
from streamdream.cli.output import printable
from streamdream.system.durations import describe_seconds

LINE_INTERVAL_SECONDS = 5.0


class Progress:
    """Reports progress to stderr. ``update`` takes the number of finished units and is cheap.

    ``total`` 0 means unknown; ``unit`` is "frames" or "steps".
    """

    def __init__(self, title: str, total: int, unit: str, quiet: bool = False) -> None:
        self._title, self._total, self._unit, self._quiet = printable(title), total, unit, quiet
        self._bar: Any = None
        self._first = 0
        """The first number that was reported; a resumed run begins with a large one."""
        self._stack = ExitStack()
        self._start_seconds = self._reported = time.monotonic()

    def __enter__(self) -> Progress:
        self._stack.enter_context(signals.loop())
        if self._quiet:
            return self
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _make_bar(self._unit)
            self._task = self._bar.add_task(self._title, total=self._total or None, speed="", left="")
            self._bar.start()
            self._stack.callback(self._bar.stop)
            atexit.register(self._bar.stop)  # shows the cursor again
            self._stack.callback(atexit.unregister, self._bar.stop)
        else:
            sys.stderr.write(f"{self._title}\n")
            sys.stderr.flush()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.close()

    def set_total(self, total: int) -> None:
        """It was unknown, or changes."""
        self._total = total
        if self._bar:
            self._bar.update(self._task, total=total)

    def update(self, done: int, left_seconds: float | None = None) -> None:
        """Report ``done`` finished units. ``left_seconds`` replaces the estimate from the speed so far.

        Raises SignalReceived after Ctrl-C or SIGTERM.
        """
        signals.check()
        if self._quiet:
            return
        now = time.monotonic()
        if self._first == 0:  # speed counts from here: before it lies the loading
            self._start_seconds, self._first = now, done
        speed = (done - self._first) / (now - self._start_seconds) if done > self._first else 0.0
        if left_seconds is None and self._total and speed:
            left_seconds = max(0, self._total - done) / speed
        left = f"{describe_seconds(left_seconds)} left" if left_seconds is not None else ""
        rate = f"{speed:.1f} {self._unit}/s" if speed else ""
        if self._bar:
            self._bar.update(self._task, completed=done, speed=rate, left=left)
        elif now - self._reported >= LINE_INTERVAL_SECONDS:
            self._reported = now
            total = f" of {self._total}" if self._total else ""
            sys.stderr.write(", ".join(part for part in (f"{done}{total} {self._unit}", rate, left) if part) + "\n")
            sys.stderr.flush()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """A context for a pause: nothing is drawn, and its time does not count for the speed."""
        start = time.monotonic()
        if self._bar:
            self._bar.stop()
        yield
        if self._bar:
            self._bar.start()
        self._start_seconds += time.monotonic() - start


def _make_bar(unit: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
               TextColumn("{task.fields[speed]}"), TextColumn("{task.fields[left]}"),
               console=Console(stderr=True))
