"""The one door through which a visitor's files come in: received, looked at, kept under a name of ours, let go again.

A file is sent as the plain body of a POST. Its size is counted while it comes, then ``inspection`` looks at it in a
process of its own; only what passes gets a token, which is all that the page, and everybody after it, ever names.
"""
from __future__ import annotations

import asyncio
import contextlib
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
from streamdream.media.container import TimeRange
from streamdream.media.sources.video import AvSource

from . import file_inspection
from .file_inspection import InspectionLimits, MediaInfo
from .visitors import EXPIRE_SECONDS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

BODY_TIMEOUT_SECONDS = 15
"""A body of which nothing comes for so long is given up."""
WHOLE_SECONDS = 600
MAX_CONCURRENT, MAX_CONCURRENT_PER_ADDRESS = 8, 3
"""Files that are being received or looked at."""
UNCLAIMED_SECONDS = 120
"""A file that no session asked for within this time is let go."""
MAX_UNCLAIMED = 16
"""Files of one address that no session asked for yet; beyond it, the oldest go."""
MAX_TOTAL_FACTOR = 20
"""All files together may weigh so many times what a single one may."""
ADDRESS_SHARE = 4
"""Files of one address may be one in so many, and weigh as much, of what there is room for."""
MAX_NAME_LENGTH = 60
MIN_DECODER_PIXELS = 1 << 20
"""Pixels that a decoder may always have: of a small picture it codes, and allocates, more than is shown."""
GONE = "that file is not here any more; choose it again"


@dataclass
class Upload:
    """A file that passed. ``name`` is what the visitor calls it: to be shown, escaped, and for nothing else."""

    token: str
    path: Path
    name: str
    facts: MediaInfo
    visitor: str = ""
    """The session that uses it; "" until one does."""
    address: str = ""
    """Where it came from."""
    size_bytes: int = 0
    at_seconds: float = 0.0
    """When it came, or was last asked for."""
    seen_seconds: float = 0.0
    """When its visitor was last seen."""

    @property
    def is_video(self) -> bool:
        return self.facts.suffix in file_inspection.CONTAINERS

    def open(self, start: float = 0.0, end: float = float("inf")) -> AvSource:
        """The frames of a video in that span. Pictures that are much larger than its header says are damage. Raises
        what AvSource raises.
        """
        if not self.path.exists():
            raise UsageError(GONE)
        largest = max(MIN_DECODER_PIXELS, 2 * self.facts.width * self.facts.height)

        def open_safely() -> Any:
            container = file_inspection.open_video(self.path, self.facts.suffix)
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = {"max_pixels": str(largest)}
            return container

        return AvSource("the video", open_safely, TimeRange.of(start, end=end))


class Uploads:
    """All files that visitors have sent, in one folder; from any thread.

    When there is no room for one more, those go that lie longest of the address that has most: the door stays open.
    """

    def __init__(self, folder: Path, limits: InspectionLimits, most_from_visitor: int = 8, most: int = 256,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.limits = folder, limits
        self._most_from_visitor, self._most, self._clock = most_from_visitor, most, clock
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, "streamdream-upload")
        """Disk and inspection; a thread for each file that comes in, so that none waits for another's."""
        self._kept: dict[str, Upload] = {}
        self._coming: list[str] = []
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def receive(self, name: str, chunks: AsyncIterator[bytes], stated_bytes: int = 0, address: str = ""
                      ) -> Upload:
        """What ``chunks`` holds, once it has passed. Raises UsageError; then nothing of it is left."""
        suffix = file_inspection.known_suffix(name)
        self._check_bytes(stated_bytes)
        with self._coming_from(address):
            token = secrets.token_urlsafe(18)
            path = self.folder / f"{token}{suffix}"
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    await self._write(path, chunks)
                upload: Upload = await self._in_thread(self._look_and_keep, token, path, name, address)
                return upload
            except BaseException as error:
                with contextlib.suppress(RuntimeError):  # closed: the whole folder goes
                    await asyncio.shield(self._in_thread(self._remove, token))
                if isinstance(error, TimeoutError):
                    raise UsageError("the file came too slowly") from None
                raise

    def take(self, data: bytes, name: str, address: str = "") -> Upload:
        """What came with an event instead, such as a drawing. Raises UsageError; then nothing of it is left."""
        suffix = file_inspection.known_suffix(name)
        self._check_bytes(len(data))
        token = secrets.token_urlsafe(18)
        path = self.folder / f"{token}{suffix}"
        try:
            path.write_bytes(data)
            return self._look_and_keep(token, path, name, address)
        except BaseException:
            self._remove(token)
            raise

    def _look_and_keep(self, token: str, path: Path, name: str, address: str) -> Upload:
        facts, now = file_inspection.inspect(path, path.suffix, self.limits), self._clock()
        path = path.with_suffix(facts.suffix)
        upload = Upload(token, path, clean_name(name), facts, "", address, path.stat().st_size, now, now)
        self._keep(upload)
        return upload

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        size = 0
        with await self._in_thread(path.open, "xb") as file:
            while True:
                async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                size += len(chunk)
                self._check_bytes(size)
                await self._in_thread(file.write, chunk)
        if not size:
            raise UsageError("this file is empty")

    def _check_bytes(self, size: int) -> None:
        if size > self.limits.megabytes * 1e6:
            raise UsageError(f"this file is larger than {self.limits.megabytes:g} MB")

    @contextlib.contextmanager
    def _coming_from(self, address: str) -> Iterator[None]:
        with self._lock:
            if len(self._coming) >= MAX_CONCURRENT or self._coming.count(address) >= MAX_CONCURRENT_PER_ADDRESS:
                raise UsageError("too many files are coming in just now; try again in a moment")
            self._coming.append(address)
        try:
            yield
        finally:
            with self._lock:
                self._coming.remove(address)

    def _keep(self, upload: Upload) -> None:
        self.sweep()
        for older in self._unclaimed(upload.address)[:-MAX_UNCLAIMED]:
            self.drop(older.token)
        with self._lock:
            evicted = self._make_room(upload)
            self._kept[upload.token] = upload
        for token in evicted:
            self._remove(token)

    def _make_room(self, upload: Upload) -> list[str]:
        """Forget what has to go, so that one more is within all limits; return the tokens."""
        most_bytes, evicted = MAX_TOTAL_FACTOR * self.limits.megabytes * 1e6, []
        for part, share in ((upload.address, ADDRESS_SHARE), (None, 1)):
            while True:
                files, sizes = Counter({upload.address: 1}), Counter({upload.address: upload.size_bytes})
                for other in self._kept.values():
                    if part is None or other.address == part:
                        files[other.address] += 1
                        sizes[other.address] += other.size_bytes
                if files.total() * share > self._most:
                    over = files
                elif sizes.total() > max(most_bytes / share, upload.size_bytes):
                    over = sizes
                else:
                    break
                evicted.append(self._forget_oldest(over))
        return evicted

    def _forget_oldest(self, held: Counter[str]) -> str:
        """Of the address that holds most, among those that have a file here."""
        mine = {other.address for other in self._kept.values() if other.address in held}
        most = max(held[address] for address in mine)
        oldest = min((other for other in self._kept.values() if other.address in mine and held[other.address] == most),
                     key=lambda other: (other.seen_seconds, other.at_seconds))
        del self._kept[oldest.token]
        return oldest.token

    def _unclaimed(self, address: str) -> list[Upload]:
        """Of that address, which may be that of many, the oldest first."""
        found = [upload for upload in self._all() if not upload.visitor and upload.address == address]
        return sorted(found, key=lambda upload: upload.at_seconds)

    def claim(self, token: str, visitor: str) -> Upload:
        """The file of that token, which from now on lives as long as that visitor's session. Raises UsageError."""
        with self._lock:
            upload = self._kept.get(token)
            if upload is None or upload.visitor not in ("", visitor):
                raise UsageError(GONE)
            upload.visitor, upload.at_seconds, upload.seen_seconds = visitor, self._clock(), self._clock()
            mine = [other for other in self._kept.values() if other.visitor == visitor]
            oldest = sorted(mine, key=lambda other: other.at_seconds)[:-self._most_from_visitor]
        for other in oldest:
            self.drop(other.token)
        return upload

    def seen(self, visitor: str) -> None:
        """That visitor is here: their files stay."""
        with self._lock:
            for upload in self._kept.values():
                if upload.visitor == visitor:
                    upload.seen_seconds = self._clock()

    def drop(self, token: str) -> None:
        with self._lock:
            self._kept.pop(token, None)
        self._remove(token)

    def forget(self, visitor: str) -> None:
        """A session has ended: its files go."""
        for upload in self._all():
            if visitor and upload.visitor == visitor:
                self.drop(upload.token)

    def sweep(self) -> None:
        """Lets go what nobody asked for, and what belongs to visitors who are gone."""
        for upload in self._all():
            longest = EXPIRE_SECONDS if upload.visitor else UNCLAIMED_SECONDS
            if self._clock() - upload.seen_seconds > longest:
                self.drop(upload.token)

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        with self._lock:
            self._kept.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Upload]:
        with self._lock:
            return list(self._kept.values())

    def _remove(self, token: str) -> None:
        for path in self.folder.glob(f"*{token}*"):  # what a writer that was killed left beside it, too
            with contextlib.suppress(OSError):
                path.unlink()


def clean_name(name: str) -> str:
    """What can be shown of a file's name, once escaped: its last part, without control characters, and short."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(letter for letter in last if letter.isprintable())
    return shown if len(shown) <= MAX_NAME_LENGTH else shown[:MAX_NAME_LENGTH - 1] + "…"


def upload_route(uploads: Uploads) -> Callable[[Request], Awaitable[Response]]:
    """``POST /uploads?name=NAME`` with the file as body -> its token and facts, or one line that says what is wrong."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse

    async def upload(request: Request) -> Response:
        length = request.headers.get("content-length", "0")
        stated = int(length) if length.isascii() and length.isdigit() else 0
        address = request.client.host if request.client else ""
        try:
            kept = await uploads.receive(request.query_params.get("name", ""), request.stream(), stated, address)
        except ClientDisconnect:
            return JSONResponse({"error": "it did not come to its end"}, 400)
        except UsageError as error:
            # what still comes is not read: the connection ends with the answer
            return JSONResponse({"error": str(error)}, 400, {"Connection": "close"})
        facts = kept.facts
        return JSONResponse({"token": kept.token, "video": kept.is_video, "width": facts.width,
                             "height": facts.height, "seconds": facts.seconds, "sound": facts.sound})

    return upload
