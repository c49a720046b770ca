"""The folder of uploads and results that outlive a server: private, of one server at a time or of several replicas."""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.system.cache_dir import cache_dir

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from streamdream.settings import WebSettings

    from .replica import Replica

LOCK, MARK = "lock", "of-streamdream-web"
"""Files in it; the mark says that the others are ours, too, and may be removed."""
START_SECONDS = 5.0
"""How long another replica is waited for that starts at the same time."""


def default_folder(web: WebSettings) -> str:
    """Return the folder that ``web`` names, or one for its port, so that a restarted server finds its own again; "" if
    nothing is kept, or the port is another one each time.
    """
    if not web.keep_hours:
        return ""
    return web.shared_folder or web.keep_folder or (str(cache_dir("web") / str(web.port)) if web.port else "")


def check_folder(web: WebSettings) -> None:
    """Raises UsageError when what ``default_folder`` returns cannot be used, or options contradict each other."""
    if web.shared_folder and not web.keep_hours:
        raise UsageError("--shared-folder keeps what visitors have; with --keep-hours 0 nothing is kept")
    if web.shared_folder and web.keep_folder:
        raise UsageError("--keep-folder is of one server, --shared-folder of several; give one of them")
    if web.shared_folder:
        join_folder(Path(web.shared_folder)).close()
    elif folder := default_folder(web):
        lock_folder(Path(folder)).release()


def lock_folder(folder: Path) -> BaseFileLock:
    """Make the folder, and hold its lock until the process ends. Raises UsageError."""
    from filelock import FileLock, Timeout

    from .replica import Replica

    lock = FileLock(folder / LOCK)
    try:
        _prepare(folder, "--keep-folder")
        lock.acquire(timeout=0)
        if Replica.any_lives(folder):
            lock.release()
            raise UsageError(f"--keep-folder {folder} is shared by other servers; give --shared-folder")
    except Timeout:
        raise UsageError(f"--keep-folder {folder} is in use by another server; name another folder, or stop that one "
                         "and start both with --shared-folder") from None
    except OSError as error:
        raise UsageError(f"--keep-folder {folder} cannot be used: {error.strerror}; --keep-hours 0 keeps nothing"
                         ) from None
    return lock


def join_folder(folder: Path) -> Replica:
    """Make the folder, and be one of the replicas that share it until the process ends. Raises UsageError."""
    from filelock import FileLock, Timeout

    from .replica import Replica

    try:
        _prepare(folder, "--shared-folder")
        with FileLock(folder / LOCK).acquire(timeout=START_SECONDS):
            return Replica(folder)
    except Timeout:
        raise UsageError(f"--shared-folder {folder} is in use by a server with --keep-folder; stop that one, and start "
                         "all with --shared-folder") from None
    except OSError as error:
        raise UsageError(f"--shared-folder {folder} cannot be used: {error.strerror or error}") from None


def _prepare(folder: Path, flag: str) -> None:
    """Make and mark the folder. Raises UsageError for one that is not ours, or OSError."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(f"{flag} {folder} holds other files; name a new folder, or an empty one")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise UsageError(f"{flag} {folder} belongs to another user, or is a link")
    folder.chmod(0o700)
    (folder / MARK).touch()


def is_ours(folder: Path) -> bool:
    """Return whether a server has used that folder."""
    return (folder / MARK).exists()
