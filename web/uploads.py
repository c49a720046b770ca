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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.errors import UsageError
from streamdream.passthrough import Span
from streamdream.sources import AvSource

from . import inspection
from .inspection import Facts, Limits

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SILENCE_SECONDS = 15
"""A body of which nothing comes for so long is given up."""
WHOLE_SECONDS = 600
MOST_AT_ONCE, MOST_FROM_ONE_ADDRESS = 8, 3
"""Files that are being received or looked at."""
UNCLAIMED_SECONDS = 120
"""A file that no session asked for within this time is let go."""
MOST_UNCLAIMED = 16
"""Files of one address that no session asked for yet; beyond it, the oldest go."""
MOST_TIMES = 20
"""All files together may weigh so many times what a single one may."""
LONGEST_SHOWN_NAME = 60
LEAST_LARGEST = 1 << 20
"""Pixels that a decoder may always have: of a small picture it codes, and allocates, more than is shown."""
GONE = "that file is not here any more; choose it again"


@dataclass
class Upload:
    """A file that passed. ``name`` is what the visitor calls it: to be shown, escaped, and for nothing else."""

    token: str
    path: Path
    name: str
    facts: Facts
    visitor: str = ""
    """The session that uses it; "" until one does."""
    address: str = ""
    """Where it came from."""
    size_bytes: int = 0
    at_seconds: float = field(default_factory=time.monotonic)
    """When it came, or was last asked for."""

    @property
    def is_video(self) -> bool:
        return self.facts.suffix in inspection.CONTAINERS

    def open(self, start: float = 0.0, end: float = float("inf")) -> AvSource:
        """The frames of a video in that span. Pictures that are much larger than its header says are damage. Raises
        what AvSource raises.
        """
        if not self.path.exists():
            raise UsageError(GONE)
        largest = max(LEAST_LARGEST, 2 * self.facts.width * self.facts.height)

        def open_safely() -> Any:
            container = inspection.open_video(self.path, self.facts.suffix)
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = {"max_pixels": str(largest)}
            return container

        return AvSource("the video", open_safely, Span.of(start, end=end))


class Uploads:
    """All files that visitors have sent, in one folder; from any thread."""

    def __init__(self, folder: Path, limits: Limits, most_from_visitor: int = 8, most: int = 256) -> None:
        self.folder, self.limits = folder, limits
        self._most_from_visitor, self._most = most_from_visitor, most
        self._kept: dict[str, Upload] = {}
        self._coming: list[str] = []
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def receive(self, name: str, chunks: AsyncIterator[bytes], stated_bytes: int = 0, address: str = ""
                      ) -> Upload:
        """What ``chunks`` holds, once it has passed. Raises UsageError; then nothing of it is left."""
        suffix = inspection.known_suffix(name)
        self._check_bytes(stated_bytes)
        with self._coming_from(address):
            token = secrets.token_urlsafe(18)
            path = self.folder / f"{token}{suffix}"
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    await self._write(path, chunks)
                facts = await asyncio.to_thread(inspection.inspect, path, suffix, self.limits)
                path = path.with_suffix(facts.suffix)
                upload = Upload(token, path, clean_name(name), facts, address=address, size_bytes=path.stat().st_size)
                self._keep(upload)
                return upload
            except TimeoutError:
                self._remove(token)
                raise UsageError("the file came too slowly") from None
            except BaseException:
                self._remove(token)
                raise

    def take(self, data: bytes, name: str) -> Upload:
        """What came with an event instead, such as a drawing. Raises UsageError; then nothing of it is left."""
        suffix = inspection.known_suffix(name)
        self._check_bytes(len(data))
        token = secrets.token_urlsafe(18)
        path = self.folder / f"{token}{suffix}"
        try:
            path.write_bytes(data)
            facts = inspection.inspect(path, suffix, self.limits)
            upload = Upload(token, path.with_suffix(facts.suffix), clean_name(name), facts)
            self._keep(upload)
            return upload
        except BaseException:
            self._remove(token)
            raise

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        size = 0
        with path.open("xb") as file:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                size += len(chunk)
                self._check_bytes(size)
                file.write(chunk)
        if not size:
            raise UsageError("this file is empty")

    def _check_bytes(self, size: int) -> None:
        if size > self.limits.megabytes * 1e6:
            raise UsageError(f"this file is larger than {self.limits.megabytes:g} MB")

    @contextlib.contextmanager
    def _coming_from(self, address: str) -> Iterator[None]:
        with self._lock:
            if len(self._coming) >= MOST_AT_ONCE or self._coming.count(address) >= MOST_FROM_ONE_ADDRESS:
                raise UsageError("too many files are coming in just now; try again in a moment")
            self._coming.append(address)
        try:
            yield
        finally:
            with self._lock:
                self._coming.remove(address)

    def _keep(self, upload: Upload) -> None:
        self.sweep()
        for older in self._unclaimed(upload.address)[:-MOST_UNCLAIMED]:
            self.drop(older.token)
        with self._lock:
            size = upload.size_bytes + sum(other.size_bytes for other in self._kept.values())
            if len(self._kept) >= self._most or size > MOST_TIMES * self.limits.megabytes * 1e6:
                raise UsageError("this server holds as many files as it can; try again in a few minutes")
            self._kept[upload.token] = upload

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
            upload.visitor, upload.at_seconds = visitor, time.monotonic()
            mine = [other for other in self._kept.values() if other.visitor == visitor]
            oldest = sorted(mine, key=lambda other: other.at_seconds)[:-self._most_from_visitor]
        for other in oldest:
            self.drop(other.token)
        return upload

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
        """Lets go what nobody asked for."""
        for upload in self._all():
            if not upload.visitor and time.monotonic() - upload.at_seconds > UNCLAIMED_SECONDS:
                self.drop(upload.token)

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        with self._lock:
            self._kept.clear()
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
    return shown if len(shown) <= LONGEST_SHOWN_NAME else shown[:LONGEST_SHOWN_NAME - 1] + "…"


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
