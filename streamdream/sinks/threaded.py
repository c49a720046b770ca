"""The thread a sink writes in, and the hidden name it writes under."""
from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, StreamdreamError
from streamdream.frame import Frame
from streamdream.passthrough import reason

QUEUE_FRAMES = 4
log = logging.getLogger(__name__)
FULL = {errno.ENOSPC, errno.EDQUOT}


class Managed:
    """The context manager of all sinks: finishes, or aborts when there was an error."""

    def finish(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.finish()
        else:
            self.abort()


class Output:
    """What a writer writes to, by its ``name``, and how its faults are told."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fail(self, error: BaseException) -> NoReturn:
        """Raises what went wrong with this output, in one line."""
        if isinstance(error, StreamdreamError):
            raise error
        raise self._explain(error) from error

    def _explain(self, error: BaseException) -> SinkError:
        return SinkError(f"{self.name} cannot be written ({reason(error)})")


class Partial(Output):
    """An output under a hidden name in the same folder (so that renaming it is atomic) until it is whole.

    Raises SinkError when the folder cannot be written.
    """

    def __init__(self, path: str, folder: bool = False) -> None:
        super().__init__(path)
        self._committed = False
        self.target = Path(os.path.realpath(path))  # an output that is a link is written where it points
        stem, suffix = self.target.stem[:50], self.target.suffix
        self.path = self.target.with_name(f".{stem}.{os.getpid()}.partial{'' if folder else suffix}")
        atexit.register(self.discard)  # a signal may come before anybody else knows of it
        try:
            self.path.mkdir() if folder else self.path.touch()
        except OSError as error:
            self.fail(error)

    def _explain(self, error: BaseException) -> SinkError:
        folder = self.target.parent
        kept = "; the one from before is untouched" if self.target.exists() else ""
        if getattr(error, "errno", None) in FULL:
            return SinkError(f"no space left in {folder} for {self.name}{kept}")
        if not folder.exists():
            return SinkError(f"{self.name} cannot be written: its folder is gone")
        return SinkError(f"{self.name} cannot be written ({reason(error)}){kept}")

    def commit(self) -> None:
        """Makes the file appear. What the disk still refuses, it refuses before the old file is gone."""
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.path.replace(self.target)
        self._committed = True
        atexit.unregister(self.discard)

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        with contextlib.suppress(OSError):
            return (self.target if self._committed else self.path).stat().st_size
        return 0

    def discard(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # on a read-only disk even what is missing cannot be removed
                self.path.unlink()
        atexit.unregister(self.discard)


class Writer(Protocol):
    """What a ThreadedSink drives. ``write`` and ``complete`` are called in its thread, all else in the caller's."""

    warnings: list[str]

    @property
    def partial(self) -> Output:
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


class ThreadedSink(Managed):
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
        self._writer.partial.fail(error)

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


class LiveSink(ThreadedSink):
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
