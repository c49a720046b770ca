"""Write to a sink in a thread."""
from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import numpy as np

from streamdream.errors import SinkError, StreamdreamError
from streamdream.media.frame import Frame, Picture, check_picture
from streamdream.media.sinks.base import SinkBase
from streamdream.system.atomic_file import OutputTarget

QUEUE_FRAMES = 4
log = logging.getLogger(__name__)


class Writer(Protocol):
    """The part of a ThreadedSink that writes. ``write`` and ``complete`` run in its thread, the rest in the
    caller's.
    """

    warnings: list[str]

    @property
    def partial(self) -> OutputTarget:
        """The target of the output."""

    @property
    def bytes_written(self) -> int: ...

    def prepare(self, image: Picture, frame: Frame) -> Any:
        """Make the item for ``write``: a copy, so that the caller may change ``image``."""

    def write(self, item: Any) -> None: ...
    def complete(self) -> None:
        """Write all that is buffered."""

    def commit(self) -> None:
        """Give the output its name."""

    def discard(self) -> None:
        """Remove the output, quickly."""

    def keep(self) -> None:
        """After an error, instead of ``discard``: keep what plays."""

    @property
    def kept(self) -> str:
        """After ``keep`` or ``commit``: one line with the length and path of the output; "" when there is none."""


class ThreadedSink(SinkBase):
    """A sink that writes in a thread with a queue of ``depth`` pictures; the next call raises its errors."""

    def __init__(self, writer: Writer, depth: int = QUEUE_FRAMES) -> None:
        self._writer = writer
        self.warnings = writer.warnings
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._open = True
        self._stopping = False
        self._count = 0
        self._thread = threading.Thread(target=self._work, name="streamdream-encode", daemon=True)
        self._thread.start()

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written

    def write(self, image: Picture, frame: Frame) -> None:
        if not self._open:
            raise SinkError(f"{self._writer.partial.name} is closed")
        if isinstance(image, np.ndarray):
            check_picture(image)
        self._check()
        self._put(image, frame)

    def _put(self, image: Picture, frame: Frame) -> None:
        self._queue.put(self._writer.prepare(image, frame))
        self._count += 1

    def finish(self) -> None:
        if not self._open:
            return
        try:
            self._join()
            if self._error is None:
                if not self._count:
                    raise SinkError(f"no frame was written to {self._writer.partial.name}, so it was not made")
                self._writer.commit()
        except Exception as error:
            self._error = error
        except BaseException:  # Ctrl-C
            self._give_up()
            raise
        self._check()
        self._open = False

    def abort(self) -> None:
        if self._stop():
            self._writer.discard()

    def _stop(self) -> bool:
        """Stop the thread; return False when it was stopped before."""
        was_open, self._open = self._open, False
        if was_open:
            self._stopping = True
            self._join()
        return was_open

    def _give_up(self) -> None:
        """Stop after an error, or when there is no time to finish."""
        self.abort()

    def _check(self) -> None:
        """Raise the error of the thread, or of the end."""
        if self._error is not None:
            self._give_up()
            self._fail(self._error)

    def _fail(self, error: BaseException) -> NoReturn:
        self._writer.partial.raise_error(error)

    def _join(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._attempt(self._writer.write, item)
        if self._count:
            self._attempt(self._writer.complete)

    def _attempt(self, work: Callable[..., None], *arguments: Any) -> None:
        """Skip ``work`` after an error or when stopping: emptying the queue keeps callers from waiting for room."""
        if self._error is None and not self._stopping:
            try:
                work(*arguments)
            except BaseException as error:
                self._error = error


class DroppingSink(ThreadedSink):
    """A sink whose ``write`` never blocks, for live runs. When its queue is full, it drops the new picture, or with
    ``drop_oldest`` the oldest one. ``remedy`` is an option that helps against that.

    After an error, the output so far is kept; a line with its length and path is added to ``kept``.
    """

    def __init__(self, writer: Writer, depth: int, drop_oldest: bool = False, remedy: str = "",
                 kept: list[str] | None = None) -> None:
        super().__init__(writer, depth)
        self._drop_oldest, self._remedy = drop_oldest, remedy
        self.dropped = 0
        self._kept_lines: list[str] = [] if kept is None else kept
        self._kept = ""

    def _put(self, image: Picture, frame: Frame) -> None:
        if self._queue.full():
            self.dropped += 1
            if not self._drop_oldest:
                return
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
        super()._put(image, frame)

    def finish(self) -> None:
        if self._open and self.dropped:
            written = self._count - self.dropped if self._drop_oldest else self._count
            self.warnings.append(f"{self._writer.partial.name} was too slow: it holds {written} of "
                                 f"{written + self.dropped} pictures" + (f"; {self._remedy}" if self._remedy else ""))
        super().finish()

    def _give_up(self) -> None:
        if not self._count:
            self.abort()
        elif self._stop():
            self._writer.keep()
            self._report_kept()

    def _fail(self, error: BaseException) -> NoReturn:
        try:
            super()._fail(error)
        except SinkError as fault:
            if self._kept:
                raise SinkError(f"{fault}; {self._kept}") from error
            raise

    def _report_kept(self) -> None:
        self._kept = self._writer.kept
        if self._kept:
            self._kept_lines.append(self._kept)

    def __exit__(self, *error: object) -> None:
        """Finish after an error elsewhere; after Ctrl-C there is no time for that."""
        if error[0] is None or not self._open or not self._count:
            return super().__exit__(*error)
        if isinstance(error[0], type) and issubclass(error[0], Exception):
            try:
                self.finish()
            except StreamdreamError as fault:
                log.warning("%s", fault)
                return
            self._report_kept()
        else:
            self._give_up()
        if self._kept:
            log.warning("%s", self._kept)
