"""End the program at Ctrl-C, SIGTERM and SIGHUP with one line and an exit code, without partial files.

    while libraries load, between loops    the handler removes partial files and exits
    in a loop that calls ``check``         the next ``check`` raises; without one, exit after GRACE_SECONDS
    in a live run                          the first signal calls ``stop``: the run finishes its recording
    a second signal                        exit at once

The handler raises nothing: an exception may meet a library that swallows it, or C++ code that aborts the process.
"""
from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXITS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
GRACE_SECONDS, CLEANUP_SECONDS = 1.0, 1.5
"""Timeouts: of a loop until its next ``check``, and of the exit functions, after which the process exits anyway."""
_received: signal.Signals | None = None
_exiting = False
_on_first: Callable[[], None] | None = None
"""Called by the first signal instead of exiting."""
_describe: Callable[[], str] = str


class SignalReceived(BaseException):
    """A loop ends because of a signal. Not an Exception, so that no fallback takes it for a failure."""

    def __init__(self, number: signal.Signals) -> None:
        self.exit_code, _ = EXITS[number]
        super().__init__(_message(number))


def install() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP, except what the parent process ignores, as nohup does SIGHUP."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def finish() -> None:
    """End the process silently at signals from now on, as the command has ended."""
    global _exiting
    _exiting = True


def check() -> None:
    """Raise SignalReceived if a signal came. From the first call on, the handler leaves the exit to the next one."""
    global _on_first
    if _received is not None:
        _on_first = None
        raise SignalReceived(_received)
    _on_first = _start_grace


@contextmanager
def loop() -> Iterator[None]:
    """A context for a loop that calls ``check``; after it, the handler exits at once again."""
    with stop_on_signal(None):
        yield


@contextmanager
def stop_on_signal(stop: Callable[[], None] | None) -> Iterator[None]:
    """A context in which the first signal calls ``stop``."""
    global _on_first
    before, _on_first = _on_first, stop
    try:
        yield
    finally:
        _on_first = before


@contextmanager
def describe_with(describe: Callable[[], str]) -> Iterator[None]:
    """A context in which ``describe`` tells an interrupted user what is kept; "" for the text of before."""
    global _describe
    before = _describe
    _describe = lambda: describe() or before()  # noqa: E731
    try:
        yield
    finally:
        _describe = before


def _message(number: signal.Signals) -> str:
    return f"{EXITS[number][1]}; {_describe() or 'nothing was left behind'}"


def _handle(number: int, frame: object) -> None:
    global _received
    first, _received = _received is None, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    if first and _on_first is not None:
        _on_first()
    else:
        _exit(_received)


def _start_grace() -> None:
    _start_timer(GRACE_SECONDS, lambda: None if _on_first is None else _exit(_received or signal.SIGTERM))


def _exit(number: signal.Signals) -> None:
    global _exiting
    if _exiting:
        os._exit(EXITS[number][0])
    _exiting = True
    from streamdream.system import atomic_file

    atomic_file.remove_partial_files()
    _start_timer(CLEANUP_SECONDS, lambda: _report_and_exit(number))  # threads of engines may take long to join
    atexit._run_exitfuncs()
    _report_and_exit(number)


def _report_and_exit(number: signal.Signals) -> None:
    try:
        os.write(2, f"error: {_message(number)}\n".encode())
    finally:  # also if the terminal is closed
        os._exit(EXITS[number][0])


def _start_timer(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
