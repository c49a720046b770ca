"""Pause a render: the key p on a terminal, or SIGUSR1. Windows has neither."""
from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any

from streamdream.cli import signals
from streamdream.cli.output import log_line

KEY = b"p"
CHECK_INTERVAL_SECONDS = 0.25
"""How often a paused render looks for a signal that ends it."""


class Pause:
    """While open, it listens to the signal and the key; ``wait`` holds a loop up while it is paused."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """How long all pauses took."""
        self._paused = False
        self._terminal: _Terminal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Pause:
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGUSR1, self._toggle)
            self._stack.callback(signal.signal, signal.SIGUSR1, before)
            if _Terminal.is_usable():
                self._terminal = self._stack.enter_context(_Terminal())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.close()

    def wait(self, suspended: AbstractContextManager[object]) -> float:
        """Return how many seconds it was paused, which it spends in the context ``suspended``.

        Raises SignalReceived as ``signals.check`` does.
        """
        self._read_keys(0)
        if not self._paused:
            return 0.0
        start = time.monotonic()
        with suspended:
            log_line("paused; p or SIGUSR1 resumes" if self._terminal
                     else f"paused; SIGUSR1 resumes: kill -USR1 {os.getpid()}")
            while self._paused:
                signals.check()
                self._read_keys(CHECK_INTERVAL_SECONDS)
        log_line("resumed")
        seconds = time.monotonic() - start
        self.seconds += seconds
        return seconds

    def _toggle(self, number: int, frame: object) -> None:
        self._paused = not self._paused

    def _read_keys(self, timeout_seconds: float) -> None:
        if self._terminal is None:
            time.sleep(timeout_seconds)
        elif self._terminal.read(timeout_seconds).count(KEY) % 2:
            self._paused = not self._paused


class _Terminal:
    """Standard input as a terminal that gives each key at once and does not show it; Ctrl-C stays a signal."""

    @staticmethod
    def is_usable() -> bool:
        try:
            return sys.stdin is not None and sys.stdin.isatty() and _is_in_foreground(sys.stdin.fileno())
        except (OSError, ValueError):
            return False

    def __enter__(self) -> _Terminal:
        import termios
        import tty

        self._number = sys.stdin.fileno()
        self._before: list[Any] = termios.tcgetattr(self._number)
        atexit.register(self._restore)
        self._quit_handler = signal.signal(signal.SIGQUIT, self._quit)
        tty.setcbreak(self._number, termios.TCSADRAIN)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        signal.signal(signal.SIGQUIT, self._quit_handler)
        atexit.unregister(self._restore)

    def read(self, timeout_seconds: float) -> bytes:
        """The keys of that time. A process in the background may not read: it would be stopped."""
        if not _is_in_foreground(self._number):
            time.sleep(timeout_seconds)
            return b""
        ready, _, _ = select.select([self._number], [], [], timeout_seconds)
        try:
            keys = os.read(self._number, 64) if ready else b""
        except OSError:  # the terminal was closed
            keys = b""
        if ready and not keys:
            time.sleep(timeout_seconds)
        return keys

    def _quit(self, number: int, frame: object) -> None:
        """Ctrl-\\ ends the process as it does without this handler."""
        self._restore()
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGQUIT)

    def _restore(self) -> None:
        import termios

        try:
            if _is_in_foreground(self._number):
                termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)
        except (OSError, termios.error):  # the terminal is gone
            pass


def _is_in_foreground(number: int) -> bool:
    try:
        return os.tcgetpgrp(number) == os.getpgrp()
    except OSError:
        return False
