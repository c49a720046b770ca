"""The thread a sink writes in."""
from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, StreamdreamError
from streamdream.media.frame import Frame, check_picture
from streamdream.media.sinks.base import SinkBase
from streamdream.system.atomic_file import OutputTarget

QUEUE_FRAMES = 4
log = logging.getLogger(__name__)


class Writer(Protocol):
    """What a ThreadedSink drives. ``write`` and ``complete`` are called in its thread, all else in the caller's."""

    warnings: list[str]

    @property
    def partial(self) -> OutputTarget:
        """What it writes to."""

    @property
    def bytes_written(self) -> int: ...

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> Any:
        """What ``write`` needs, copied, so that the caller may change ``image``."""

    def write(self, item: Any) -> None: ...
    def complete(self) -> None:
        """Writes all that is held back."""

    def commit(self) -> None:
        """Gives the output its name."""

    def discard(self) -> None:
        """Removes what was written, quickly."""

    def keep(self) -> None:
        """Instead of ``discard``, after a fault: leaves what is of use."""

    @property
    def kept(self) -> str:
        """After ``keep`` or ``commit``: what there is and where, as a line; "" when there is nothing."""


class ThreadedSink(SinkBase):
    """A sink that writes in a thread, at most ``depth`` pictures behind; its errors surface at the next call."""

    def __init__(self, writer: Writer, depth: int = QUEUE_FRAMES) -> None:
        self._writer = writer
        self.warnings = writer.warnings
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._open = True
        self._stopping = False
        self._count = 0
        self._thread = threading.Thread(target=self._work, name="streamdream-encode", daemon=True)
        self._thread.start()

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        if not self._open:
            raise SinkError(f"{self._writer.partial.name} is closed")
        check_picture(image)
        self._check()
        self._put(image, frame)

    def _put(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self._waiting.put(self._writer.prepare(image, frame))
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
        """Takes and writes no more. False when that was so already."""
        was_open, self._open = self._open, False
        if was_open:
            self._stopping = True
            self._join()
        return was_open

    def _give_up(self) -> None:
        """After a fault of its own, or when there is no time to finish."""
        self.abort()

    def _check(self) -> None:
        """Raises what went wrong in the thread, or at the end."""
        if self._error is not None:
            self._give_up()
            self._fail(self._error)

    def _fail(self, error: BaseException) -> NoReturn:
        self._writer.partial.raise_error(error)

    def _join(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._attempt(self._writer.write, item)
        if self._count:
            self._attempt(self._writer.complete)

    def _attempt(self, work: Callable[..., None], *arguments: Any) -> None:
        """After an error, and when stopping, pictures are only taken off the queue, so that nobody waits for room."""
        if self._error is None and not self._stopping:
            try:
                work(*arguments)
            except BaseException as error:
                self._error = error


class DroppingSink(ThreadedSink):
    """One that never makes a show wait. When it is ``depth`` pictures behind, it leaves out the picture that comes, or
    with ``newest`` the one that waited longest. ``remedy`` is what to type against that.

    Whatever fails, what was written until then is kept; a line that says what and where is added to ``kept``.
    """

    def __init__(self, writer: Writer, depth: int, newest: bool = False, remedy: str = "",
                 kept: list[str] | None = None) -> None:
        super().__init__(writer, depth)
        self._newest, self._remedy = newest, remedy
        self.left_out = 0
        self._all_kept: list[str] = [] if kept is None else kept
        self._kept = ""

    def _put(self, image: NDArray[np.uint8], frame: Frame) -> None:
        if self._waiting.full():
            self.left_out += 1
            if not self._newest:
                return
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
        super()._put(image, frame)

    def finish(self) -> None:
        if self._open and self.left_out:
            taken = self._count - self.left_out if self._newest else self._count
            self.warnings.append(f"{self._writer.partial.name} was too slow: it holds {taken} of "
                                 f"{taken + self.left_out} pictures" + (f"; {self._remedy}" if self._remedy else ""))
        super().finish()

    def _give_up(self) -> None:
        if not self._count:
            self.abort()
        elif self._stop():
            self._writer.keep()
            self._tell()

    def _fail(self, error: BaseException) -> NoReturn:
        try:
            super()._fail(error)
        except SinkError as fault:
            if self._kept:
                raise SinkError(f"{fault}; {self._kept}") from error
            raise

    def _tell(self) -> None:
        self._kept = self._writer.kept
        if self._kept:
            self._all_kept.append(self._kept)

    def __exit__(self, *error: object) -> None:
        """After somebody else's fault it is finished; after Ctrl-C there is no time for that."""
        if error[0] is None or not self._open or not self._count:
            return super().__exit__(*error)
        if isinstance(error[0], type) and issubclass(error[0], Exception):
            try:
                self.finish()
            except StreamdreamError as fault:
                log.warning("%s", fault)
                return
            self._tell()
        else:
            self._give_up()
        if self._kept:
            log.warning("%s", self._kept)
