"""This server among the replicas that share a folder: its name in it, and which of the others still live.

Each replica holds the lock of a file of its own for as long as its process lives, on this machine or on another one: so
the shared file system must know file locks, as local ones, NFS 4 and CephFS do.
"""
from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NOBODY = "nobody"
"""The owner of what a replica has given up: any other one takes it."""
NAME = re.compile(rf"{NOBODY}|[0-9a-f]{{16}}")


class Replica:
    """Lives until ``close``, or the end of the process. Raises OSError when the folder cannot be written."""

    def __init__(self, shared_folder: Path) -> None:
        self._folder = shared_folder / "replicas"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self.name = secrets.token_hex(8)
        self._lock = FileLock(self._path(self.name), thread_local=False)
        self._lock.acquire(timeout=0)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    @contextlib.contextmanager
    def taking_over(self, owner: str) -> Iterator[bool]:
        """Yield whether the replica ``owner`` is gone. Within it, no other replica takes over what it has left."""
        lock = FileLock(self._path(owner if NAME.fullmatch(owner) else NOBODY))
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # it lives, another replica takes over, or the disk fails
            yield False
            return
        try:
            yield owner != self.name
        finally:
            lock.release()

    def remove_abandoned(self, owners: set[str]) -> None:
        """Remove the files of replicas that are gone and own nothing."""
        for path in self._folder.glob("*.lock"):
            if path.stem in owners | {self.name, NOBODY}:
                continue
            with self.taking_over(path.stem) as is_gone, contextlib.suppress(OSError):
                if is_gone:
                    path.unlink()

    def close(self) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):
            self._path(self.name).unlink()
