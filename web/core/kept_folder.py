"""The folder of uploads and results that outlive a server: private, and of one server at a time."""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.system.cache_dir import cache_dir

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from streamdream.settings import WebSettings

LOCK, MARK = "lock", "of-streamdream-web"
"""Files in it; the mark says that the others are ours, too, and may be removed."""


def default_folder(web: WebSettings) -> str:
    """Return the folder that ``web`` names, or one for its port, so that a restarted server finds its own again; "" if
    nothing is kept, or the port is another one each time.
    """
    if not web.keep_hours:
        return ""
    return web.keep_folder or (str(cache_dir("web") / str(web.port)) if web.port else "")


def lock_folder(folder: Path) -> BaseFileLock:
    """Make the folder, and hold its lock until the process ends. Raises UsageError."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()):
            raise UsageError(f"--keep-folder {folder} holds other files; name a new folder, or an empty one")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
            raise UsageError(f"--keep-folder {folder} belongs to another user, or is a link")
        folder.chmod(0o700)
        (folder / MARK).touch()
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"--keep-folder {folder} is in use by another server; name another folder") from None
    except OSError as error:
        raise UsageError(f"--keep-folder {folder} cannot be used: {error.strerror}; --keep-hours 0 keeps nothing"
                         ) from None
    return lock
