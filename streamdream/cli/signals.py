"""Ctrl-C and SIGTERM end the program at any time: with one line, its code, and nothing half done under its name.
SIGHUP, which comes when the terminal is closed, becomes SIGTERM.

A signal raises an exception in the main thread, wherever that is. Now and then that is where somebody swallows it: a
bare ``except`` of a library, C code that asks whether an attribute exists, what runs when an object goes. So an
exception that goes without having been heard raises its signal anew.
"""
from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamdream.errors import StreamdreamError

UNINTERRUPTIBLE_IMPORTS, RESEND_SECONDS = ("torch", "openvino"), 0.05
"""Libraries that call Python from C++ while they are loaded, where an exception aborts the process. A signal that comes
meanwhile comes again, so much later, until they are there.
"""


class SignalReceived(BaseException):
    """Not an Exception, so that few swallow it; ``heard`` by whom it was meant for, or raised anew."""

    number: signal.Signals
    exit_code: int
    description: str
    heard = False

    def __del__(self) -> None:
        if not self.heard and not sys.is_finalizing() and signal.getsignal(self.number) is _raise:
            _resend(self.number)


class Terminated(SignalReceived):
    """SIGTERM."""

    number, exit_code, description = signal.SIGTERM, 143, "terminated"


class Interrupted(SignalReceived, KeyboardInterrupt):
    """Ctrl-C. When a plain KeyboardInterrupt passes through an ``exec`` (each dataclass has one), CPython 3.11 ends the
    process by the signal, whatever exit code was asked for afterwards; a subclass it leaves alone.
    """

    number, exit_code, description = signal.SIGINT, 130, "interrupted"


KINDS: dict[int, type[SignalReceived]] = {kind.number: kind for kind in (Interrupted, Terminated)}


def acknowledge(signalled: SignalReceived) -> SignalReceived:
    """The program ends by it: neither it nor one that it came after is raised anew."""
    link: BaseException | None = signalled
    while link is not None:
        if isinstance(link, SignalReceived):
            link.heard = True
        link = link.__context__
    return signalled


def exit_on_signal(say: bool = True) -> None:
    """From here on a signal ends the process where it is: until ``watch`` the program is still being loaded, which
    takes seconds on a machine that is busy; and after a command there is nothing left to do, or to ``say``.
    """
    def end(number: int, frame: object) -> None:
        if say:
            os.write(2, f"error: {KINDS[number].description}; nothing was left behind\n".encode())
        os._exit(KINDS[number].exit_code)

    _handle(end)


def raise_on_signal() -> None:
    """From here on a signal raises ``Terminated`` or ``Interrupted`` in the main thread."""
    _handle(_raise)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _ignore_unraisable


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Within it the first Ctrl-C or SIGTERM calls ``stop``: a live run has no other end. The next one interrupts."""
    def handle(number: int, frame: object) -> None:
        raise_on_signal()
        stop()

    _handle(handle)
    try:
        yield
    finally:
        raise_on_signal()


@contextmanager
def report_interrupted(describe: Callable[[], str]) -> Iterator[None]:
    """Within it an interruption is an error that says what was kept."""
    try:
        yield
    except SignalReceived as signalled:
        stopped = StreamdreamError("interrupted; " + describe())
        stopped.exit_code = acknowledge(signalled).exit_code
        raise stopped from None


def _handle(handler: Callable[[int, object], None]) -> None:
    """Of SIGINT and SIGHUP, too, unless whoever began the process wants them ignored, as a shell does with the first in
    the background, and nohup with the second.
    """
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def _raise(number: int, frame: object) -> None:
    if any(map(_is_being_loaded, UNINTERRUPTIBLE_IMPORTS)):
        _resend(number)
        return
    raise KINDS[number]


def _resend(number: int) -> None:
    again = threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _is_being_loaded(module: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False))


def _ignore_unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Python reports what is raised while an object goes, and goes on; a signal's comes again by itself."""
    if not issubclass(lost.exc_type, SignalReceived):
        sys.__unraisablehook__(lost)
