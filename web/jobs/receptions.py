"""Files that are being received: in one request, or in several, each of which goes on where the last one broke off."""
from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamdream.errors import UsageError

from ..core import limits, strings
from .file_inspection import known_suffix
from .upload import clean_name


class Busy(UsageError):
    """There is no place for one more upload at the moment."""


class Interrupted(UsageError):
    """A request ended before its time; what it brought is kept."""


class WrongOffset(UsageError):
    """A request does not begin where the last one broke off."""


@dataclass(eq=False)
class Reception:
    """A file of which a part may be here. ``name`` is the visitor's, cleaned."""

    token: str
    path: Path
    name: str
    visitor: str
    address: str
    total_bytes: int = 0
    """Of the whole file; 0 if all of it comes in one request."""
    received_bytes: int = 0
    spent_seconds: float = 0.0
    """How long its requests took so far."""
    seen_seconds: float = 0.0
    """When its last request ended."""
    deadline: asyncio.Timeout | None = None
    """While a request brings bytes."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request at a time."""

    @property
    def is_whole(self) -> bool:
        return self.received_bytes == self.total_bytes

    @property
    def is_paused(self) -> bool:
        return not self.turn.locked()

    def interrupt(self) -> None:
        """End the request that brings bytes, if there is one."""
        with contextlib.suppress(RuntimeError):  # it is ending already
            if self.deadline is not None:
                self.deadline.reschedule(asyncio.get_running_loop().time())


class Receptions:
    """The files of ``folder`` that are being received. On one event loop; ``find``, ``drop``, ``sweep`` on any thread.

    ``max_bytes`` is the limit of one file.
    """

    def __init__(self, folder: Path, max_bytes: float, clock: Callable[[], float]) -> None:
        self._folder, self._max_bytes, self._clock = folder, max_bytes, clock
        self._threads = ThreadPoolExecutor(limits.MAX_UPLOADS, "streamdream-upload")
        """For disk and inspection: one thread for each file that is received, so that none waits for another."""
        self._receptions: dict[str, Reception] = {}
        self._active: list[Reception] = []
        """Those that have a place: a request brings bytes, or the file is inspected."""
        self._lock = threading.Lock()

    def in_thread(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def check_bytes(self, size: int, is_all: bool = True) -> None:
        """Raises UsageError for a file of that size in bytes, or of which so much has come."""
        if size > self._max_bytes:
            key = "upload.too_large" if is_all else "upload.grows_too_large"
            raise UsageError(strings.text(key, size=f"{size / 1e6:.1f}", limit=f"{self._max_bytes / 1e6:g}"))

    async def begin(self, name: str, total_bytes: int, visitor: str, address: str) -> Reception:
        """Make the reception of a file. Raises UsageError for a name or size that is not accepted, or Busy."""
        suffix = known_suffix(name)
        self.check_bytes(total_bytes)
        token = secrets.token_urlsafe(18)
        reception = Reception(token, self._folder / f"{token}{suffix}", clean_name(name), visitor, address, total_bytes,
                              seen_seconds=self._clock())
        for older in self._add(reception):
            await self.in_thread(self._remove, older)
        await self.in_thread(reception.path.touch, 0o600)
        return reception

    def _add(self, reception: Reception) -> list[Reception]:
        """Return the paused ones that it replaces: the oldest of its address, or of all, if there are too many."""
        with self._lock:
            replaced = []
            for others, limit in (
                    ([one for one in self._receptions.values() if one.address == reception.address],
                     limits.MAX_PARTIAL_UPLOADS_PER_ADDRESS),
                    (list(self._receptions.values()), limits.MAX_PARTIAL_UPLOADS)):
                left = [one for one in others if one not in replaced]
                if len(left) < limit:
                    continue
                paused = sorted((one for one in left if one.is_paused), key=lambda one: one.seen_seconds)
                if not paused:
                    raise Busy(strings.text("upload.busy"))
                replaced.append(paused[0])
            for one in replaced:
                del self._receptions[one.token]
            self._receptions[reception.token] = reception
        return replaced

    def find(self, token: str, visitor: str) -> Reception | None:
        """Return the reception of that token and visitor."""
        with self._lock:
            reception = self._receptions.get(token)
        return reception if reception is not None and reception.visitor == visitor else None

    @contextlib.asynccontextmanager
    async def place(self, reception: Reception, offset: int) -> AsyncIterator[bool]:
        """Have a place for a request that brings the bytes from ``offset`` on; it ends an earlier one of the same file,
        whose connection is lost. Yields whether the file is still being received.

        Raises Busy if this address or all together have too many uploads, or WrongOffset.
        """
        reception.interrupt()
        async with reception.turn:
            with self._lock:
                is_known = self._receptions.get(reception.token) is reception
            if not is_known:
                yield False
                return
            if offset != reception.received_bytes:
                raise WrongOffset(strings.text("upload.wrong_offset", offset=reception.received_bytes))
            self._take_place(reception)
            began_seconds = self._clock()
            try:
                yield True
            finally:
                reception.seen_seconds = self._clock()
                reception.spent_seconds += reception.seen_seconds - began_seconds
                with self._lock, contextlib.suppress(ValueError):  # it was ended for another address
                    self._active.remove(reception)

    def _take_place(self, reception: Reception) -> None:
        with self._lock:
            mine = sum(other.address == reception.address for other in self._active)
            is_full = len(self._active) >= limits.MAX_UPLOADS
            if mine >= limits.MAX_UPLOADS_PER_ADDRESS or (is_full and not self._end_slowest(reception.address)):
                raise Busy(strings.text("upload.busy"))
            self._active.append(reception)
            reception.seen_seconds = self._clock()

    def _end_slowest(self, address: str) -> bool:
        """End the slowest upload of another address that is over its time. Return whether there was one."""
        def age_seconds(one: Reception) -> float:
            return one.spent_seconds + self._clock() - one.seen_seconds

        late = [one for one in self._active if one.address != address and one.deadline is not None
                and age_seconds(one) > limits.SHARED_UPLOAD_SECONDS]
        if not late:
            return False
        slowest = min(late, key=lambda one: one.received_bytes / age_seconds(one))
        slowest.interrupt()
        self._active.remove(slowest)
        return True

    async def write(self, reception: Reception, chunks: AsyncIterator[bytes]) -> None:
        """Append ``chunks``, within ``place``. Raises UsageError for too many bytes or seconds, or Interrupted."""
        left_seconds = limits.UPLOAD_SECONDS - reception.spent_seconds
        try:
            async with asyncio.timeout(left_seconds) as reception.deadline:
                await self._write(reception, chunks)
        except TimeoutError:
            spent_seconds = reception.spent_seconds + self._clock() - reception.seen_seconds
            kind = UsageError if spent_seconds >= limits.UPLOAD_SECONDS else Interrupted
            raise kind(strings.text("upload.too_slow")) from None
        finally:
            reception.deadline = None
        if not reception.received_bytes:
            raise UsageError(strings.text("upload.empty"))

    async def _write(self, reception: Reception, chunks: AsyncIterator[bytes]) -> None:
        offset, writing = reception.received_bytes, None
        try:
            while True:
                async with asyncio.timeout(limits.BODY_TIMEOUT_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                self.check_bytes(offset + len(chunk), is_all=False)
                if 0 < reception.total_bytes < offset + len(chunk):
                    raise UsageError(strings.text("upload.larger_than_said"))
                writing = self.in_thread(_write_at, reception.path, offset, chunk)
                offset = await asyncio.shield(writing)
                reception.received_bytes = offset
        finally:
            if writing is not None:  # a write goes on when the request is cancelled
                await asyncio.wait([writing])
                if writing.exception() is None:
                    reception.received_bytes = writing.result()

    def forget(self, reception: Reception) -> None:
        """End the reception; its file stays."""
        with self._lock:
            self._receptions.pop(reception.token, None)

    def drop(self, reception: Reception) -> None:
        """End the reception and remove what was received."""
        self.forget(reception)
        self._remove(reception)

    def sweep(self) -> None:
        """Remove what was not gone on with."""
        with self._lock:
            late = [one for one in self._receptions.values()
                    if one.is_paused and self._clock() - one.seen_seconds > limits.PARTIAL_UPLOAD_SECONDS]
        for one in late:
            self.drop(one)

    def close(self) -> None:
        """Remove all that was received in part."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = list(self._receptions.values())
        for one in left:
            self.drop(one)

    def _remove(self, reception: Reception) -> None:
        for path in self._folder.glob(f"*{reception.token}*"):  # also of an inspection that was killed
            with contextlib.suppress(OSError):
                path.unlink()


def _write_at(path: Path, offset: int, data: bytes) -> int:
    """Return the offset behind it."""
    with path.open("r+b") as file:
        file.seek(offset)
        return offset + file.write(data)
