"""The temporary folder of a server: private, locked while its process lives, removed by the next server if it dies."""
from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "streamdream-web-"
LOCK = "lock"


class PrivateFolder:
    """A new folder at ``path``, which only this user can read. It is removed by ``remove``, or at the exit."""

    def __init__(self) -> None:
        remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.path.chmod(0o700)
        descriptor = os.open(self.path / "new", os.O_CREAT | os.O_RDWR, 0o600)
        self._lock = os.fdopen(descriptor, "w")
        _try_lock(descriptor)
        (self.path / "new").replace(self.path / LOCK)  # under its name it is always locked, or its process is dead
        atexit.register(self.remove)

    def remove(self) -> None:
        atexit.unregister(self.remove)
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_abandoned() -> None:
    """Remove the folders of this user's servers that were killed, as by ``kill -9``."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            descriptor = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if os.fstat(descriptor).st_uid == os.getuid() and _try_lock(descriptor):
                    shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock the file while it is open. Return False if another process has the lock, or on Windows."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
