"""Uploads of visitors: received, inspected, stored under a random name, removed again.

A file comes in one or several requests (``receptions``); its size is limited while it is received, then
``file_inspection`` checks it in a child process. Only a file that passes is stored; the page names files by tokens. In
a folder that is kept, each file has a record beside it (``upload``), by which the next server takes it up, or another
one that shares the folder.
"""
from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from streamdream.errors import UsageError

from ..core import limits, strings
from . import file_inspection
from .file_inspection import InspectionLimits, MediaInfo
from .receptions import Busy, Interrupted, Reception, Receptions
from .upload import Upload, clean_name, read_record, stamp_record, take_up, write_record

__all__ = ["Upload", "Uploads"]
MAX_LOGGED = 200
"""Characters of an error in the log."""
STRAY_SECONDS = 3600.0
"""How old a file without a record is when it is removed from a shared folder: another server may be receiving it."""
log = logging.getLogger(__name__)


class Uploads:
    """The files of all visitors, in one folder. Thread-safe; ``receive`` and ``go_on`` on one event loop.

    A file whose visitor is not seen for ``keep_seconds`` is removed. When there is no room for a new file, the oldest
    files of the address that holds most are evicted: ``max_bytes`` limits all files together. With ``keeps`` the
    files outlive the server, and those of an earlier one are taken up.
    """

    def __init__(self, folder: Path, inspection_limits: InspectionLimits,
                 max_per_visitor: int = limits.MAX_FILES_PER_VISITOR,
                 max_files: int = limits.MAX_FILES,
                 clock: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None, *,
                 keep_seconds: float = limits.EXPIRE_SECONDS, max_bytes: float = math.inf, keeps: bool = False,
                 is_shared: bool = False) -> None:
        self.folder, self.inspection_limits = folder, inspection_limits
        self._max_per_visitor, self._max_files, self._clock = max_per_visitor, max_files, clock
        self._max_bytes = min(limits.MAX_TOTAL_FACTOR * inspection_limits.megabytes * 1e6, max_bytes)
        self._keep_seconds, self._keeps, self._is_shared = keep_seconds, keeps, is_shared
        self._counts = Counter[str]() if counts is None else counts
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.receptions = Receptions(folder, inspection_limits.megabytes * 1e6, clock)
        if keeps:
            self._take_up()

    def synchronize(self) -> None:
        """Learn of the files that other servers have stored in a shared folder: they count against the limits."""
        if self._is_shared:
            self._take_up()

    def _take_up(self) -> None:
        """Take up the files of earlier servers, and of others, as long as they would have been kept by them."""
        for upload, seen_seconds in sorted(take_up(self.folder, STRAY_SECONDS * self._is_shared),
                                           key=lambda pair: pair[1]):
            if upload.token not in self._uploads:
                self._store(self._stamped(upload, seen_seconds), sweeps=False)
        self.sweep()

    def _stamped(self, upload: Upload, seen_seconds: float) -> Upload:
        """Set when the visitor of a stored file was last seen, which its record says in seconds since 1970."""
        upload.seen_seconds = upload.at_seconds = self._clock() - max(0.0, time.time() - seen_seconds)
        upload.is_foreign = self._is_shared
        return upload

    async def receive(self, name: str, chunks: AsyncIterator[bytes], stated_bytes: int = 0, address: str = "",
                      visitor: str = "") -> Upload:
        """Store and inspect the file in ``chunks``. Raises UsageError; then nothing of it is left."""
        self.receptions.check_bytes(stated_bytes)
        reception = await self.receptions.begin(name, 0, visitor, address)
        try:
            upload = await self.go_on(reception, chunks, 0)
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # closed, with the whole folder
                await asyncio.shield(self.receptions.in_thread(self.receptions.drop, reception))
            if isinstance(error, Interrupted):
                raise UsageError(str(error)) from None
            raise
        if upload is None:  # it was replaced before its first byte
            raise Busy(strings.text("upload.busy"))
        return upload

    async def go_on(self, reception: Reception, chunks: AsyncIterator[bytes], offset: int) -> Upload | None:
        """Append ``chunks`` at ``offset``, and inspect and store the file once it is whole; until then return None.

        Raises Busy, Interrupted or WrongOffset, after which it may go on later; any other UsageError is a refusal.
        """
        async with self.receptions.place(reception, offset) as is_open:
            if not is_open:
                found: Upload | None = await self.receptions.in_thread(self.find, reception.token, reception.visitor)
                return found
            await self.receptions.write(reception, chunks)
            if reception.total_bytes and not reception.is_whole:
                return None
            upload: Upload = await self.receptions.in_thread(
                self._accept, reception)
            return upload

    def _accept(self, reception: Reception) -> Upload:
        upload = self._inspect_and_store(reception.token, reception.path, reception.name, reception.address,
                                         reception.visitor)
        self.receptions.forget(reception)  # here, as the request may be cancelled meanwhile
        return upload

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

    def take(self, data: bytes, name: str, address: str = "", visitor: str = "") -> Upload:
        """Store and inspect a file that came with an event, such as a drawing. Raises UsageError as ``receive``."""
        suffix = file_inspection.known_suffix(name)
        self.receptions.check_bytes(len(data))
        token = secrets.token_urlsafe(18)
        path = self.folder / f"{token}{suffix}"
        try:
            path.write_bytes(data)
            return self._inspect_and_store(token, path, clean_name(name), address, visitor)
        except BaseException:
            self._remove(token)
            raise

    def copy(self, source: Path, name: str, facts: MediaInfo, address: str, visitor: str) -> Upload:
        """Store a copy of a file of ours, which needs no inspection, or return the visitor's earlier one."""
        for own in self._all():
            if visitor and own.visitor == visitor and own.name == name and own.facts == facts:
                return self.claim(own.token, visitor)
        token = secrets.token_urlsafe(18)
        path = self.folder / f"{token}{facts.suffix}"
        try:
            shutil.copyfile(source, path)
            return self._add(token, path, name, facts, address, visitor)
        except BaseException:
            self._remove(token)
            raise

    def _inspect_and_store(self, token: str, path: Path, name: str, address: str, visitor: str) -> Upload:
        facts = file_inspection.inspect(path, path.suffix, self.inspection_limits)
        return self._add(token, path.with_suffix(facts.suffix), name, facts, address, visitor)

    def _add(self, token: str, path: Path, name: str, facts: MediaInfo, address: str, visitor: str) -> Upload:
        now = self._clock()
        upload = Upload(token, path, name, facts, visitor, address, path.stat().st_size, now, now)
        if self._keeps:
            write_record(upload)
        self._store(upload)
        self._limit_files_of(visitor)
        return upload

    def _store(self, upload: Upload, sweeps: bool = True) -> None:
        if sweeps:
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
        evicted = []
        for part, share in ((upload.address, limits.ADDRESS_SHARE), (None, 1)):
            while True:
                files, sizes = Counter({upload.address: 1}), Counter({upload.address: upload.size_bytes})
                for other in self._uploads.values():
                    if part is None or other.address == part:
                        files[other.address] += 1
                        sizes[other.address] += other.size_bytes
                if files.total() * share > self._max_files:
                    over = files
                elif sizes.total() > max(self._max_bytes / share, upload.size_bytes):
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
        unclaimed = [upload for upload in self._all()
                     if not (upload.visitor or upload.is_foreign) and upload.address == address]
        return sorted(unclaimed, key=lambda upload: upload.at_seconds)

    def claim(self, token: str, visitor: str) -> Upload:
        """Give the file of that token to a visitor, and return it. It lives as long as they do. Raises UsageError."""
        self._look_up(token)
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None or upload.visitor not in ("", visitor):
                raise UsageError(strings.text("upload.gone"))
            is_new, upload.visitor = not upload.visitor, visitor
            upload.at_seconds = upload.seen_seconds = self._clock()
        if is_new and self._keeps:
            try:
                write_record(upload)
            except OSError as error:
                log.warning("an upload is not stored: %s", error.strerror)
        self._limit_files_of(visitor)
        return upload

    def _limit_files_of(self, visitor: str) -> None:
        """Remove the oldest files of a visitor who has too many."""
        mine = [upload for upload in self._all() if visitor and upload.visitor == visitor]
        for other in sorted(mine, key=lambda other: other.at_seconds)[:-self._max_per_visitor]:
            self.drop(other.token)

    def find(self, token: str, visitor: str) -> Upload | None:
        """Return the file of that token and visitor."""
        self._look_up(token)
        with self._lock:
            upload = self._uploads.get(token)
        return upload if upload is not None and upload.visitor == visitor else None

    def _look_up(self, token: str) -> None:
        """Learn what other servers that share the folder did with a file."""
        if not self._is_shared:
            return
        with self._lock:
            known = self._uploads.get(token)
        if known is not None and known.visitor and known.path.exists():
            return
        found = read_record(self.folder, token)
        if known is None and found:
            self._store(self._stamped(*found))
        elif known is not None:
            with self._lock:  # it was removed, or claimed
                if found:
                    known.visitor = found[0].visitor
                else:
                    self._uploads.pop(token, None)

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

    def sweep(self) -> None:
        """Remove unclaimed files, files of visitors who are gone, and parts of files that do not go on."""
        self.receptions.sweep()
        behind_seconds = time.time() - self._clock()
        for upload in self._all():
            if self._keeps and not self._stamp(upload, behind_seconds):
                continue
            unclaimed_seconds = STRAY_SECONDS if upload.is_foreign else limits.UNCLAIMED_SECONDS
            longest = self._keep_seconds if upload.visitor else unclaimed_seconds
            if self._clock() - upload.seen_seconds > longest:
                self.drop(upload.token)

    def _stamp(self, upload: Upload, behind_seconds: float) -> bool:
        """Note when the visitor was last seen, here or elsewhere. Return False if the file is gone."""
        try:
            upload.seen_seconds = stamp_record(upload, behind_seconds + upload.seen_seconds) - behind_seconds
        except FileNotFoundError:  # another server has removed it, or its record could not be written
            if not self._is_shared:
                return True
            with self._lock:
                self._uploads.pop(upload.token, None)
            return False
        return True

    def close(self) -> None:
        """Remove the folder with all files, unless they are kept."""
        if self._keeps:
            self.sweep()
        self.receptions.close()
        with self._lock:
            self._uploads.clear()
        if not self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Upload]:
        with self._lock:
            return list(self._uploads.values())

    def _remove(self, token: str) -> None:
        for path in self.folder.glob(f"*{token}*"):  # also temporary files of a writer that was killed
            with contextlib.suppress(OSError):
                path.unlink()
