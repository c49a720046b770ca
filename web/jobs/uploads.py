"""Uploads of visitors: received, inspected, stored under a random name, removed again.

A file is the plain body of a POST. Its size is limited while it is received, then ``file_inspection`` checks it in a
child process. Only a file that passes gets a token; the page names files by tokens only.
"""
from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange
from streamdream.media.sources.av_source import AvSource

from ..core import limits
from . import file_inspection
from .file_inspection import InspectionLimits, MediaInfo

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_NAME_LENGTH = 60
MAX_LOGGED = 200
"""Characters of an error in the log."""
MIN_DECODER_PIXELS = 1 << 20
"""Pixels that a decoder may always allocate: more than the visible ones of a small frame."""
WHOLE_VIDEO = TimeRange()
log = logging.getLogger(__name__)
GONE = "that file is not here any more; choose it again"


@dataclass
class Upload:
    """A file that passed the inspection. ``name`` is the visitor's, only for display, and must be escaped."""

    token: str
    path: Path
    name: str
    facts: MediaInfo
    visitor: str = ""
    """The visitor who uses it; "" until it is claimed."""
    address: str = ""
    """The address that sent it."""
    size_bytes: int = 0
    at_seconds: float = 0.0
    """When it was received, or last claimed."""
    seen_seconds: float = 0.0
    """When its visitor was last seen."""

    @property
    def is_video(self) -> bool:
        return self.facts.suffix in file_inspection.UPLOADABLE_VIDEOS

    def open(self, span: TimeRange = WHOLE_VIDEO) -> AvSource:
        """Open the frames of a video in that span. Frames much larger than its header says count as damage.

        Raises UsageError when the file is gone, and what AvSource raises.
        """
        if not self.path.exists():
            raise UsageError(GONE)
        largest = max(MIN_DECODER_PIXELS, 2 * self.facts.width * self.facts.height)

        def open_safely() -> Any:
            container = file_inspection.open_video(self.path)
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = {"max_pixels": str(largest)}
            return container

        return AvSource("the video", open_safely, span)


@dataclass(eq=False)
class _Reception:
    """A file that is being received, or inspected."""

    address: str
    began_seconds: float
    size_bytes: int = 0
    deadline: asyncio.Timeout | None = None
    """While it is received."""


class Uploads:
    """The files of all visitors, in one folder. Thread-safe; ``receive`` on one event loop.

    When there is no room for a new file, the oldest files of the address that holds most are evicted.
    """

    def __init__(self, folder: Path, inspection_limits: InspectionLimits,
                 max_per_visitor: int = limits.MAX_FILES_PER_VISITOR,
                 max_files: int = limits.MAX_FILES,
                 clock: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None) -> None:
        self.folder, self._inspection_limits = folder, inspection_limits
        self._max_per_visitor, self._max_files, self._clock = max_per_visitor, max_files, clock
        self._threads = ThreadPoolExecutor(limits.MAX_UPLOADS, "streamdream-upload")
        """For disk and inspection: one thread for each file that is received, so that none waits for another."""
        self._counts = Counter[str]() if counts is None else counts
        self._uploads: dict[str, Upload] = {}
        self._receptions: list[_Reception] = []
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def receive(self, name: str, chunks: AsyncIterator[bytes], stated_bytes: int = 0, address: str = ""
                      ) -> Upload:
        """Store and inspect the file in ``chunks``. Raises UsageError; then nothing of it is left."""
        suffix = file_inspection.known_suffix(name)
        self._check_bytes(stated_bytes)
        with self._reserve_place(address) as reception:
            token = secrets.token_urlsafe(18)
            path = self.folder / f"{token}{suffix}"
            try:
                async with asyncio.timeout(limits.UPLOAD_SECONDS) as reception.deadline:
                    await self._write(path, chunks, reception)
                reception.deadline = None
                upload: Upload = await self._in_thread(self._inspect_and_store, token, path, name, address)
                return upload
            except BaseException as error:
                with contextlib.suppress(RuntimeError):  # closed, with the whole folder
                    await asyncio.shield(self._in_thread(self._remove, token))
                if isinstance(error, TimeoutError):
                    raise UsageError("the upload is too slow") from None
                raise

    def note(self, upload: Upload | None, address: str, seconds: float, error: str = "") -> None:
        """Count and log an upload that has ended; the log has no name that a visitor has chosen."""
        outcome = "refused" if upload is None else "accepted"
        self._counts[f"uploads {outcome}"] += 1
        facts: dict[str, Any] = {"address": address, "seconds": round(seconds, 3)}
        if upload is None:
            facts["error"] = error[:MAX_LOGGED]
        else:
            self._counts["upload bytes"] += upload.size_bytes
            facts |= {"file": upload.token[:4], "type": upload.facts.suffix, "bytes": upload.size_bytes}
        log.info("an upload was %s", outcome, extra={"facts": facts})

    def take(self, data: bytes, name: str, address: str = "") -> Upload:
        """Store and inspect a file that came with an event, such as a drawing. Raises UsageError as ``receive``."""
        suffix = file_inspection.known_suffix(name)
        self._check_bytes(len(data))
        token = secrets.token_urlsafe(18)
        path = self.folder / f"{token}{suffix}"
        try:
            path.write_bytes(data)
            return self._inspect_and_store(token, path, name, address)
        except BaseException:
            self._remove(token)
            raise

    def _inspect_and_store(self, token: str, path: Path, name: str, address: str) -> Upload:
        facts, now = file_inspection.inspect(path, path.suffix, self._inspection_limits), self._clock()
        path = path.with_suffix(facts.suffix)
        upload = Upload(token, path, clean_name(name), facts, "", address, path.stat().st_size, now, now)
        self._store(upload)
        return upload

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _write(self, path: Path, chunks: AsyncIterator[bytes], reception: _Reception) -> None:
        with await self._in_thread(path.open, "xb") as file:
            while True:
                async with asyncio.timeout(limits.BODY_TIMEOUT_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                reception.size_bytes += len(chunk)
                self._check_bytes(reception.size_bytes)
                await self._in_thread(file.write, chunk)
        if not reception.size_bytes:
            raise UsageError("this file is empty")

    def _check_bytes(self, size: int) -> None:
        if size > self._inspection_limits.megabytes * 1e6:
            raise UsageError(f"this file is larger than {self._inspection_limits.megabytes:g} MB")

    @contextlib.contextmanager
    def _reserve_place(self, address: str) -> Iterator[_Reception]:
        """Raise UsageError if this address or all together have too many uploads."""
        reception = _Reception(address, self._clock())
        with self._lock:
            mine = sum(other.address == address for other in self._receptions)
            is_full = len(self._receptions) >= limits.MAX_UPLOADS
            if mine >= limits.MAX_UPLOADS_PER_ADDRESS or (is_full and not self._end_slowest(address)):
                raise UsageError("too many files are being uploaded; try again in a moment")
            self._receptions.append(reception)
        try:
            yield reception
        finally:
            with self._lock, contextlib.suppress(ValueError):  # it was ended for another address
                self._receptions.remove(reception)

    def _end_slowest(self, address: str) -> bool:
        """End the slowest upload of another address that is over its time. Return whether there was one."""
        late = [other for other in self._receptions if other.address != address and other.deadline is not None
                and self._clock() - other.began_seconds > limits.SHARED_UPLOAD_SECONDS]
        if not late:
            return False
        slowest = min(late, key=lambda other: other.size_bytes / (self._clock() - other.began_seconds))
        if slowest.deadline is not None:
            slowest.deadline.reschedule(asyncio.get_running_loop().time())
        self._receptions.remove(slowest)
        return True

    def _store(self, upload: Upload) -> None:
        self.sweep()
        for older in self._unclaimed(upload.address)[:-limits.MAX_UNCLAIMED]:
            self.drop(older.token)
        with self._lock:
            evicted = self._make_room(upload)
            self._uploads[upload.token] = upload
        for token in evicted:
            self._remove(token)

    def _make_room(self, upload: Upload) -> list[str]:
        """Forget files until there is room for one more; return their tokens."""
        max_bytes, evicted = limits.MAX_TOTAL_FACTOR * self._inspection_limits.megabytes * 1e6, []
        for part, share in ((upload.address, limits.ADDRESS_SHARE), (None, 1)):
            while True:
                files, sizes = Counter({upload.address: 1}), Counter({upload.address: upload.size_bytes})
                for other in self._uploads.values():
                    if part is None or other.address == part:
                        files[other.address] += 1
                        sizes[other.address] += other.size_bytes
                if files.total() * share > self._max_files:
                    over = files
                elif sizes.total() > max(max_bytes / share, upload.size_bytes):
                    over = sizes
                else:
                    break
                evicted.append(self._forget_oldest(over))
        return evicted

    def _forget_oldest(self, sizes: Counter[str]) -> str:
        """Forget the oldest file of the address that holds most, and return its token."""
        candidates = [other for other in self._uploads.values() if other.address in sizes]
        largest = max(sizes[other.address] for other in candidates)
        oldest = min((other for other in candidates if sizes[other.address] == largest),
                     key=lambda other: (other.seen_seconds, other.at_seconds))
        del self._uploads[oldest.token]
        return oldest.token

    def _unclaimed(self, address: str) -> list[Upload]:
        """Return the unclaimed files of an address, oldest first."""
        unclaimed = [upload for upload in self._all() if not upload.visitor and upload.address == address]
        return sorted(unclaimed, key=lambda upload: upload.at_seconds)

    def claim(self, token: str, visitor: str) -> Upload:
        """Give the file of that token to a visitor, and return it. It lives as long as they do. Raises UsageError."""
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None or upload.visitor not in ("", visitor):
                raise UsageError(GONE)
            upload.visitor, upload.at_seconds, upload.seen_seconds = visitor, self._clock(), self._clock()
            mine = [other for other in self._uploads.values() if other.visitor == visitor]
            oldest = sorted(mine, key=lambda other: other.at_seconds)[:-self._max_per_visitor]
        for other in oldest:
            self.drop(other.token)
        return upload

    def names(self, visitor: str) -> dict[str, str]:
        """Return the names of the visitor's files by path."""
        return {str(upload.path): upload.name for upload in self._all() if upload.visitor == visitor}

    def seen(self, visitor: str) -> None:
        """Record that a visitor is here."""
        with self._lock:
            for upload in self._uploads.values():
                if upload.visitor == visitor:
                    upload.seen_seconds = self._clock()

    def drop(self, token: str) -> None:
        with self._lock:
            self._uploads.pop(token, None)
        self._remove(token)

    def forget(self, visitor: str) -> None:
        """Remove the files of a visitor."""
        for upload in self._all():
            if visitor and upload.visitor == visitor:
                self.drop(upload.token)

    def sweep(self) -> None:
        """Remove unclaimed files, and files of visitors who are gone."""
        for upload in self._all():
            longest = limits.EXPIRE_SECONDS if upload.visitor else limits.UNCLAIMED_SECONDS
            if self._clock() - upload.seen_seconds > longest:
                self.drop(upload.token)

    def close(self) -> None:
        """Remove the folder with all files."""
        with self._lock:
            self._uploads.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Upload]:
        with self._lock:
            return list(self._uploads.values())

    def _remove(self, token: str) -> None:
        for path in self.folder.glob(f"*{token}*"):  # also temporary files of a writer that was killed
            with contextlib.suppress(OSError):
                path.unlink()


def clean_name(name: str) -> str:
    """Return what is displayed of a file name: its last part, without control characters, at most MAX_NAME_LENGTH."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(letter for letter in last if letter.isprintable())
    return shown if len(shown) <= MAX_NAME_LENGTH else shown[:MAX_NAME_LENGTH - 1] + "…"


def upload_route(uploads: Uploads) -> Callable[[Request], Awaitable[Response]]:
    """Make ``POST /uploads?name=NAME``: the body is a file, the answer is JSON: a token or an error."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse

    async def receive(request: Request) -> Response:
        length = request.headers.get("content-length", "0")
        stated_bytes = int(length) if length.isascii() and length.isdigit() else 0
        address = request.client.host if request.client else ""
        began, upload, refusal = time.perf_counter(), None, "it broke off"
        try:
            upload = await uploads.receive(request.query_params.get("name", ""), request.stream(), stated_bytes,
                                           address)
        except ClientDisconnect:
            return JSONResponse({"error": "the upload broke off"}, 400)
        except UsageError as error:
            refusal = str(error)
            # the rest of the body is not read, so the connection is closed
            return JSONResponse({"error": str(error)}, 400, {"Connection": "close"})
        finally:
            uploads.note(upload, address, time.perf_counter() - began, refusal)
        facts = upload.facts
        return JSONResponse({"token": upload.token, "video": upload.is_video, "width": facts.width,
                             "height": facts.height, "seconds": facts.seconds, "sound": facts.sound})

    return receive
