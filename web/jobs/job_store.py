"""Jobs on the disk: each has a folder with its files, its result and ``job.json``, so that the next server finds it.

    TOKEN/  job.json    what ``save`` writes
            input.mp4   the visitor's file, and guide, style and mask
            dream.mp4   the result
            thumb.jpg   a small picture of it
            cancelled   there when another replica than its own has cancelled it
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from streamdream.errors import SinkError, StreamdreamError, UsageError
from streamdream.system.atomic_file import write_file

from .job import FINISHED, Job, Work
from .request import JobRequest
from .uploads import Upload

RECORD, THUMBNAIL, CANCELLED, FORMAT = "job.json", "thumb.jpg", "cancelled", 1
KEPT = ("title", "visitor", "address", "token", "number", "owner", "state", "attempts", "done", "total", "previews",
        "error", "warnings", "submitted_at")
"""Fields of a job that are stored as they are."""
TOKEN = re.compile(r"[A-Za-z0-9_-]{24}")
MAX_RECORD_BYTES = 1_000_000
READ_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, StreamdreamError)
"""What ``read`` raises."""
log = logging.getLogger(__name__)


def make_folder(job: Job, files: Mapping[str, Upload]) -> None:
    """Make the folder of a job with its files, by name, which need no further space. Raises UsageError."""
    try:
        job.folder.mkdir(mode=0o700)
        for name, upload in files.items():
            _link(upload.path, job.folder / name)
    except OSError as error:
        shutil.rmtree(job.folder, ignore_errors=True)
        if isinstance(error, FileNotFoundError) and job.folder.parent.exists():
            raise UsageError("that file is not here any more; choose it again") from None
        raise UsageError(f"this server cannot store the job ({error.strerror})") from None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)


def has_same_input(job: Job, upload: Upload) -> bool:
    """Whether a job dreams that very file."""
    try:
        return job.request is not None and job.request.input_path(job.folder).samefile(upload.path)
    except OSError:
        return False


def save(job: Job) -> bool:
    """Write the record of a job with a request, and return whether that is done. A full disk is logged: the job itself
    goes on.
    """
    if job.request is None:
        return False
    ended_at = time.time() - (job.clock() - job.ended_seconds) if job.finished else 0.0
    record = {"format": FORMAT, **{name: getattr(job, name) for name in KEPT}, "request": job.request.to_json(),
              "result": job.result.name if job.result else "", "ended_at": ended_at}
    try:
        write_file(str(job.folder / RECORD), json.dumps(record).encode(), overwrite=True)
    except SinkError as error:
        log.warning("a job is not stored: %s", error)
        return False
    return True


def load(folder: Path, read: Callable[[Path], Job], keep_seconds: float) -> Iterator[Job]:
    """Yield the jobs in ``folder``, by number; what is unfinished waits. Remove folders without a record. One that
    cannot be read, as of another version, is left alone for ``keep_seconds``.
    """
    jobs = []
    for path in folder.iterdir():
        try:
            job = read(path)
            job.state = job.state if job.finished else "waiting"
            jobs.append(job)
        except READ_ERRORS as error:
            log.warning("a stored job cannot be read: %s", error)
            remove_unreadable(path, keep_seconds)
    yield from sorted(jobs, key=lambda job: job.number)


def remove_unreadable(path: Path, keep_seconds: float) -> None:
    """Remove a folder that holds no job, or since ``keep_seconds`` one that is not ours."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif _is_old(path / RECORD, keep_seconds):
        shutil.rmtree(path, ignore_errors=True)


def _is_old(record: Path, keep_seconds: float) -> bool:
    """Whether there is no record, or one that was written so long ago."""
    return not record.exists() or age_seconds(record) > keep_seconds


def age_seconds(path: Path) -> float:
    """Return for how long a file or folder is as it is; 0 for one that cannot be looked at."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def cancel(job: Job) -> None:
    """Leave word for the replica whose job it is."""
    with contextlib.suppress(OSError):
        (job.folder / CANCELLED).touch()


def is_cancelled(job: Job) -> bool:
    return (job.folder / CANCELLED).exists()


def read(path: Path, work_of: Callable[[JobRequest], Work], clock: Callable[[], float]) -> Job:
    """Return the job of a folder, as it was stored. Raises one of READ_ERRORS."""
    record_path = path / RECORD
    if not TOKEN.fullmatch(path.name) or path.is_symlink() or record_path.stat().st_size > MAX_RECORD_BYTES:
        raise ValueError("not a folder of a job")
    record: dict[str, Any] = json.loads(record_path.read_text(encoding="utf-8"))
    if record["format"] != FORMAT or record["token"] != path.name:
        raise ValueError("another format")
    request = JobRequest.from_json(record["request"])
    job = Job(record["title"], record["visitor"], work_of(request), path, request=request, clock=clock)
    for name in KEPT:
        value = record[name]
        present = getattr(job, name)
        if type(value) is not type(present) and not (isinstance(present, float) and isinstance(value, int)):
            raise TypeError(name)
        setattr(job, name, value)
    if job.state in FINISHED:
        job.ended_seconds = clock() - max(0.0, time.time() - float(record["ended_at"]))
        job.result = path / Path(record["result"]).name if record["result"] else None
        if job.state == "done" and (job.result is None or not job.result.is_file()):
            raise ValueError("its result is gone")
    return job


def size_bytes(job: Job) -> int:
    """Return the size of all files of a job; one that is also an upload counts here, too."""
    total = 0
    for path in job.folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += path.lstat().st_size
    return total


def forget(job: Job) -> None:
    """Remove the record, so that the next server removes all else."""
    with contextlib.suppress(OSError):
        (job.folder / RECORD).unlink()


def remove(job: Job, but_record: bool = False) -> None:
    """Remove the files of a job."""
    if not but_record:
        forget(job)
    for path in list(job.folder.glob("*")) if but_record else [job.folder]:
        if path.name != RECORD:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
