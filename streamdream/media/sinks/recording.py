"""A live recording: a visible file that plays while it grows, and survives the end of the process.

    show.mp4 is recorded as show.partial.mp4 ──commit──▶ show.mp4
                            └──a full disk, kill -9──▶ it stays; the next run names it and records beside it
"""
from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

from streamdream.errors import SinkError, StreamdreamError
from streamdream.media.input_container import main_video_stream, open_file
from streamdream.system.atomic_file import AtomicFile, OutputTarget, rename

MAX_NAME_BYTES = 230
"""A longer name has no room for ``.partial`` and a number; the limit of a file name is 255 bytes."""
MEASURE_SECONDS = 1.0
"""How long a file is read to measure its length; beyond that, the length is estimated."""
_recordings: WeakSet[Recording] = WeakSet()
log = logging.getLogger(__name__)


class RecordingFile:
    """The file that FFmpeg writes. After a failed write it is truncated to its last complete state and accepts no more
    data: else the index of an incomplete file would overwrite the start of one that plays.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileExistsError, OSError."""
        self._file = path.open("xb", buffering=0)
        self._whole_bytes = 0
        self.error: OSError | None = None
        with contextlib.suppress(ImportError, OSError):  # shows other processes that this one is alive
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest):]
        except OSError as error:
            self.error = error
            with contextlib.suppress(OSError):
                self._file.truncate(self._whole_bytes)
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def mark_whole(self) -> None:
        """Note that all data so far plays. Raises the error of an earlier write."""
        if self.error is not None:
            raise self.error
        self._whole_bytes = self._file.tell()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Recording(AtomicFile):
    """The output of a live run, with a temporary name until it is complete. Such files from earlier runs are named in
    the log and left alone.

    Raises SinkError when the folder cannot be written.
    """

    def __init__(self, path: str, overwrite: bool = False) -> None:
        OutputTarget.__init__(self, path)
        self.overwrite = overwrite
        self._committed = False
        self.target = Path(os.path.realpath(path))  # write to the target of a link
        try:
            self.path, self.file = self._create()
        except OSError as error:
            self.raise_error(error)
        atexit.register(self.keep)  # a signal may arrive before a sink owns it
        _recordings.add(self)

    def _create(self) -> tuple[Path, RecordingFile]:
        for path in partial_paths(self.target):
            try:
                return path, RecordingFile(path)
            except FileExistsError:
                log.warning("%s", describe_unfinished(path, self._shown(path)))
        raise AssertionError("the numbers never end")

    def _shown(self, path: Path) -> str:
        """The path as the user would type it."""
        return str(path if Path(self.name).is_symlink() else Path(self.name).with_name(path.name))

    def commit(self) -> None:
        """Give the file its final name. Raises OSError or SinkError; then it keeps the temporary one."""
        self.file.sync()
        self.file.close()
        try:
            rename(self.path, self.target, self.overwrite)
        except FileExistsError:
            raise SinkError(f"{self.name} was made by another program meanwhile and is untouched") from None
        self._committed = True
        atexit.unregister(self.keep)

    def keep(self) -> None:
        """Keep a file that plays; remove one that does not."""
        self.file.close()
        atexit.unregister(self.keep)
        if not recorded_seconds(self.path):
            self.discard()

    def describe(self) -> str:
        """One line with the length and the path; "" when there is no file."""
        path = self.target if self._committed else self.path
        if not path.exists():
            return ""
        shown = self.name if self._committed else self._shown(path)
        return f"what was recorded, {clock(recorded_seconds(path))}, is in {shown}"

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.file.close()
        atexit.unregister(self.keep)


def describe_all() -> str:
    """What all recordings of this process hold, and where; "" when there is nothing."""
    return "; ".join(filter(None, (recording.describe() for recording in list(_recordings))))


def partial_paths(target: Path) -> Iterator[Path]:
    """``show.partial.mp4``, ``show.partial-2.mp4`` and so on for ``show.mp4``."""
    stem = target.stem if len(os.fsencode(target.name)) <= MAX_NAME_BYTES else target.stem[:50]
    for number in itertools.count(1):
        yield target.with_name(f"{stem}.partial{f'-{number}' if number > 1 else ''}{target.suffix}")


def describe_unfinished(path: Path, shown: str) -> str:
    """One line about an unfinished recording of an earlier or a concurrent run."""
    if is_being_written(path):
        return f"another run records to {shown}"
    seconds = recorded_seconds(path)
    if not seconds:
        return f"{shown}, from an interrupted run, holds no picture"
    return f"a recording of {clock(seconds)} from an interrupted run is in {shown}"


def is_being_written(path: Path) -> bool:
    """Whether a running process holds it; False where that cannot be known."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False


def recorded_seconds(path: Path) -> float:
    """How long it plays; 0 when it does not."""
    from av import FFmpegError

    times: list[float] = []
    container: Any
    with contextlib.suppress(StreamdreamError, FFmpegError, OSError), open_file(str(path)) as container:
        stop = time.perf_counter() + MEASURE_SECONDS
        stream = main_video_stream(container)
        for packet in container.demux(stream) if stream else ():
            start = packet.dts if packet.pts is None else packet.pts
            if not packet.size or start is None:
                continue
            start, end = (float(ticks * packet.time_base) for ticks in (start, start + (packet.duration or 0)))
            times = [min([start, *times[:1]]), max([end, *times[1:]])]
            if time.perf_counter() > stop and packet.pos:
                return float((times[1] - times[0]) * path.stat().st_size / packet.pos)
    return times[1] - times[0] if times else 0.0


def clock(seconds: float) -> str:
    """As ``0:42`` or ``1:02:03``; less than a second as ``0.4 s``."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
