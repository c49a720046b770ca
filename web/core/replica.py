"""This server among the replicas that share a folder: its name in it, and which of the others still live.

Each replica holds the lock of a file of its own for as long as its process lives, on this machine or on another one: so
the shared file system must know file locks, as local ones, NFS 4 and CephFS do.
"""
from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = "replicas"
NOBODY = "nobody"
"""The owner of what a replica has given up: any other one takes it."""
ACQUIRE_SECONDS = 5.0
"""How long the lock of one's own file is waited for: another replica may hold it for a moment, to see who lives."""
MAX_CLOCK_SECONDS = 10.0
log = logging.getLogger(__name__)
NAME = re.compile(rf"{NOBODY}|[0-9a-f]{{16}}")


class Replica:
    """Lives until ``close``, or the end of the process. Raises OSError when the folder cannot be written."""

    outlives_close = False
    """Whether a thread still writes to the folder, so that only the end of the process ends the replica."""

    def __init__(self, shared_folder: Path) -> None:
        self._folder = shared_folder / FOLDER
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self.name = secrets.token_hex(8)
        self._lock = FileLock(self._path(self.name), thread_local=False)
        self._lock.acquire(timeout=ACQUIRE_SECONDS)
        if abs(self._path(self.name).stat().st_mtime - time.time()) > MAX_CLOCK_SECONDS:
            log.warning("the clock of %s differs from that of this machine: logins and jobs may end too early or late",
                        shared_folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    @property
    def load_file(self) -> Path:
        """Where this replica tells the others of its load, see ``replica_loads``; those of the others lie beside it."""
        return self._folder / f"{self.name}.load"

    @contextlib.contextmanager
    def taking_over(self, owner: str, wait_seconds: float = 0.0) -> Iterator[bool]:
        """Yield whether the replica ``owner`` is gone, and no other one is about to take over what it has left within
        ``wait_seconds``. Within it none does.
        """
        lock = FileLock(self._path(owner if NAME.fullmatch(owner) else NOBODY))
        try:
            lock.acquire(timeout=wait_seconds)
        except (Timeout, OSError):  # it lives, another replica takes over, or the disk fails
            yield False
            return
        try:
            yield owner != self.name
        finally:
            lock.release()

    @staticmethod
    def any_lives(shared_folder: Path) -> bool:
        """Return whether a replica uses that folder."""
        for path in (shared_folder / FOLDER).glob("*.lock"):
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
        return False

    def remove_abandoned(self, owners: set[str]) -> None:
        """Remove the files of replicas that are gone and own nothing."""
        for path in self._folder.glob("*.lock"):
            if path.stem in owners | {self.name, NOBODY}:
                continue
            with self.taking_over(path.stem) as is_gone, contextlib.suppress(OSError):
                if is_gone:
                    path.unlink()
        for path in (*self._folder.glob("*.load"), *self._folder.glob("*.partial")):
            if not self._path(path.stem).exists():
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self.outlives_close:
            return
        self._lock.release()
        for path in (self._path(self.name), self.load_file):
            with contextlib.suppress(OSError):
                path.unlink()
