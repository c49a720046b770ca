"""Write files that appear only when they are complete, and overwrite others only on request.

    AtomicFile(path) ──▶ .NAME.PID-HOST.RANDOM.partial.SUFFIX ──commit──▶ path, or path with a number if somebody else
                         (hidden, in the same folder)                     made a file of that name meanwhile

A killed process leaves its hidden file; the next process that writes the same output removes it.
"""
from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from streamdream.errors import NameTaken, SinkError, StreamdreamError, error_text

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
MAX_STEM = 50
"""Characters of the output's name at the start of its hidden name; the limit of a file name is 255 bytes."""
MAX_NAME_BYTES = 240
"""A longer name has no room for a number."""
Renames = Sequence[tuple[Path, Path]]
"""(old path, new path) of each file."""
_open_paths: set[Path] = set()
"""Hidden paths that this process writes to."""


class OutputTarget:
    """The output of a writer: its ``name``, and errors that name it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def raise_error(self, error: BaseException) -> NoReturn:
        """Raise ``error`` as a one-line error of this output."""
        if isinstance(error, StreamdreamError):
            raise error
        raise self._describe_error(error) from error

    def _describe_error(self, error: BaseException) -> SinkError:
        return SinkError(f"{self.name} cannot be written ({error_text(error)})")


class AtomicFile(OutputTarget):
    """An output with a hidden name in the same folder (so that renaming is atomic) until it is complete.

    ``folder``: the hidden path is a folder, whose files are named by ``commit_files``. Without ``overwrite``, a file
    that appeared under the output's name meanwhile is not replaced. Raises SinkError when the folder cannot be written.
    """

    def __init__(self, path: str, folder: bool = False, overwrite: bool = False) -> None:
        super().__init__(path)
        self.overwrite = overwrite
        self._committed = False
        self.target = Path(os.path.realpath(path))  # write to the target of a link
        stem, suffix = self.target.stem[:MAX_STEM], "" if folder else self.target.suffix
        remove_stale(self.target.parent, stem, suffix)
        self.path = self.target.with_name(
            f".{stem}.{os.getpid()}-{_host()}.{secrets.token_hex(4)}.partial{suffix}")
        _open_paths.add(self.path)
        atexit.register(self.discard)  # a signal may arrive before a sink owns it
        try:
            self.path.mkdir() if folder else self.path.touch()
        except OSError as error:
            self._forget()
            self.raise_error(error)

    def _describe_error(self, error: BaseException) -> SinkError:
        folder = self.target.parent
        kept = "; the one from before is untouched" if self.target.exists() else ""
        if getattr(error, "errno", None) in DISK_FULL_ERRORS:
            return SinkError(f"no space left in {folder} for {self.name}{kept}")
        if not folder.exists():
            return SinkError(f"{self.name} cannot be written: its folder is gone")
        return SinkError(f"{self.name} cannot be written ({error_text(error)}){kept}")

    def write(self, data: bytes) -> None:
        """Write all of the file, and commit it. Raises SinkError, also when it got another name: see ``commit``."""
        try:
            self.path.write_bytes(data)
            self.commit()
        except OSError as error:
            self.raise_error(error)

    def commit(self) -> None:
        """Flush the file to the disk, then give it its name: errors come before an old file is replaced.

        Raises OSError, and NameTaken when another process made a file of that name meanwhile.
        """
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.commit_files(lambda target: [(self.path, target)])

    def commit_files(self, renames: Callable[[Path], Renames]) -> None:
        """As ``commit``, for several files; ``renames`` returns their new names for a target."""
        try:
            rename_all(renames(self.target), self.overwrite)
        except FileExistsError:
            kept = self._rename_numbered(renames)
            self.discard()
            raise NameTaken(f"{self.name} was made by another program meanwhile and is untouched; what was made here "
                            f"is {kept}") from None
        self._committed = True
        self.discard()

    def _rename_numbered(self, renames: Callable[[Path], Renames]) -> Path:
        """Use the first free number; return the new path as the user would type it."""
        stem, suffix = self.target.stem, self.target.suffix
        stem = stem if len(os.fsencode(self.target.name)) <= MAX_NAME_BYTES else stem[:MAX_STEM]
        for number in itertools.count(1):
            target = self.target.with_name(f"{stem}.{number}{suffix}")
            with contextlib.suppress(FileExistsError):
                rename_all(renames(target), overwrite=False)
                return target if Path(self.name).is_symlink() else Path(self.name).with_name(target.name)
        raise AssertionError("the numbers never end")

    @property
    def size(self) -> int:
        """Size of the file so far, in bytes."""
        with contextlib.suppress(OSError):
            return (self.target if self._committed else self.path).stat().st_size
        return 0

    def discard(self) -> None:
        _remove(self.path)
        self._forget()

    def _forget(self) -> None:
        _open_paths.discard(self.path)
        atexit.unregister(self.discard)


def write_file(path: str, data: bytes, overwrite: bool = False) -> None:
    """Write a file atomically. Raises SinkError, also when it got another name: see ``AtomicFile.commit``."""
    partial = AtomicFile(path, overwrite=overwrite)
    try:
        partial.write(data)
    finally:
        partial.discard()


def remove_partial_files() -> None:
    """Remove what this process has not committed, before it exits without finishing."""
    for path in list(_open_paths):
        _remove(path)


def rename_all(renames: Renames, overwrite: bool) -> None:
    """Rename files one by one; without ``overwrite``, all of them or none. Raises as ``rename`` does."""
    done: list[tuple[Path, Path]] = []
    try:
        for old, new in renames:
            rename(old, new, overwrite)
            done.append((old, new))
    except BaseException:
        for old, new in [] if overwrite else done:
            new.rename(old)
        raise


def rename(old: Path, new: Path, overwrite: bool) -> None:
    """Rename a file within a file system.

    Raises FileExistsError when ``new`` exists and ``overwrite`` is not set, or when ``new`` is not a file; OSError.
    """
    if overwrite and (new.is_file() or not os.path.lexists(new)):
        old.replace(new)
    elif os.name == "nt":  # rename never replaces a file there
        old.rename(new)
    else:
        _rename_exclusively(old, new)


def _rename_exclusively(old: Path, new: Path) -> None:
    """As ``rename`` without overwrite, which POSIX does not have: add a hard link, then remove the old name."""
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as FAT: an empty file reserves the name
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            old.replace(new)
        except BaseException:
            new.unlink()
            raise
        return
    with contextlib.suppress(OSError):
        old.unlink()


def remove_stale(folder: Path, stem: str, suffix: str) -> None:
    """Remove hidden files of the output ``stem`` + ``suffix`` in ``folder`` that dead processes have left.

    Only those of this user and this machine, where the process number can be looked up.
    """
    name = re.compile(rf"\.{re.escape(stem)}\.([0-9]+)-{_host()}\.[0-9a-f]{{8}}\.partial{re.escape(suffix)}")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = name.fullmatch(path.name)
            if match and path not in _open_paths and not _runs(int(match[1])) and path.lstat().st_uid == os.getuid():
                _remove(path)


def _runs(pid: int) -> bool:
    """Whether another process with this number runs; True where that cannot be known."""
    if os.name == "nt":  # there, signal 0 ends the process
        return True
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


@lru_cache(maxsize=1)
def _host() -> str:
    """A short identifier of this machine and container: process numbers are valid only there."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    """Remove a file or a folder; ignore one that is gone or cannot be removed, as on a read-only disk."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
