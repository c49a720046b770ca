"""The jobs in a folder that several replicas share.

A job that waits belongs to nobody; the replica that begins it is its owner until it ends. The others know it from its
record, which the owner writes again as the job goes on. What a replica leaves that has ended waits again.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.replica import NOBODY
from . import job_store, previews
from .job import Job

if TYPE_CHECKING:
    from ..core.replica import Replica

ORPHAN_SECONDS = 3600.0
"""How old a folder without a record is when it is removed: a younger one may be in the making."""
CLAIM_SECONDS = 2.0
"""How long another replica is waited for that begins a job at the same time."""
log = logging.getLogger(__name__)


class SharedJobs:
    """Keeps ``jobs``, those of a queue by their tokens, in step with the records in ``folder``; ``changed`` is the lock
    of the queue. ``read`` returns the job of a folder, as ``job_store.read``.
    """

    def __init__(self, folder: Path, replica: Replica, jobs: dict[str, Job], changed: threading.Condition,
                 read: Callable[[Path], Job]) -> None:
        self._folder, self._replica, self._read = folder, replica, read
        self._jobs, self._changed = jobs, changed
        self._stamps: dict[str, tuple[int, int]] = {}
        """Time and number of the file of each record that was read, by the token of the job."""

    def _is_own(self, job: Job) -> bool:
        return job.owner == self._replica.name

    def synchronize(self, discard: Callable[[Job], None]) -> None:
        """Learn what other replicas have done, tell them how far the jobs here are, and have the jobs wait again of
        replicas that have ended. ``discard`` ends a job that another one has cancelled.
        """
        with self._changed:
            known = {token: job for token, job in self._jobs.items() if job.request is not None}
        present = {path.name for path in self._folder.iterdir() if job_store.TOKEN.fullmatch(path.name)}
        new = list(filter(None, (self._read_if_changed(token) for token in present if token not in known or not (
            known[token].finished or self._is_own(known[token])))))  # a finished job changes no more
        for token in self._stamps.keys() - present:
            del self._stamps[token]
        with self._changed:
            for job in new:
                self._take(job)
            for token in known.keys() - present:
                if known[token].state != "running" or not self._is_own(known[token]):
                    self._jobs.pop(token, None)
            self._changed.notify_all()
        for job in known.values():
            if self._is_own(job):
                self._tell(job, discard)
        for job in self._abandoned():
            job.owner, job.state = NOBODY, "waiting"
            if job_store.save(job):
                log.info("a job waits again: its server has ended", extra={"facts": {"job": job.token[:4]}})
                with self._changed:
                    self._take(job)
                    self._changed.notify_all()

    def _take(self, job: Job) -> None:
        """Replace what is known of a job of others."""
        earlier = self._jobs.get(job.token)
        if earlier is not None and (self._is_own(earlier) or earlier.finished):
            return
        if earlier is not None and earlier.stop.is_set():
            job.stop.set()
        if job.finished and (job.stop.is_set() or job_store.is_cancelled(job)):  # it has ended before its owner knew
            self._jobs.pop(job.token, None)
            job_store.remove(job)
        else:
            self._jobs[job.token] = job

    def _tell(self, job: Job, discard: Callable[[Job], None]) -> None:
        """Write how far a job of this replica is, for the others."""
        if not job.finished and job_store.is_cancelled(job):
            discard(job)
        elif job.changed_since_save:
            job.changed_since_save = False
            if not job.finished:
                previews.save(job)
            with self._changed:  # not over the record of its end
                if job.stop.is_set() and not job.finished:
                    return
                if not self.is_lost(job):
                    job.changed_since_save = not job_store.save(job)
                elif not job.finished:
                    job.interrupted = True
                    job.stop.set()

    def _read_if_changed(self, token: str) -> Job | None:
        path = self._folder / token
        try:
            status = (path / job_store.RECORD).stat()
            stamp = status.st_mtime_ns, status.st_ino
            if self._stamps.get(token) == stamp:
                return None
            job = self._read(path)
        except OSError:  # in the making, or being removed; or the disk fails, and it is read again
            return None
        except job_store.READ_ERRORS as error:
            self._stamps[token] = stamp
            log.warning("a stored job cannot be read: %s", error)
            return None
        self._stamps[token] = stamp
        return job

    def claim(self, job: Job) -> bool:
        """Make a waiting job one of this replica; return whether it is. Within the queue's lock."""
        with self._replica.taking_over(NOBODY, CLAIM_SECONDS) as is_free:
            stored = self._stored(job) if is_free else None
            if stored is None or stored.owner != NOBODY or stored.state != "waiting":
                return False
            if job_store.is_cancelled(stored):
                job_store.remove(stored)
                return False
            job.owner, job.state, job.attempts = self._replica.name, "running", stored.attempts
            if job_store.save(job):
                return True
        job.owner, job.state = NOBODY, "waiting"
        return False

    def is_lost(self, job: Job) -> bool:
        """Return whether a job that this replica has begun is another one's by now, as after a long pause."""
        stored = self._stored(job)
        return stored is not None and stored.owner != self._replica.name

    def _abandoned(self) -> Iterator[Job]:
        """Yield the unfinished jobs whose owners are gone, as they are stored; the caller gives each to NOBODY before
        it asks for the next one. What was cancelled is removed.
        """
        by_owner: dict[str, list[Job]] = {}
        with self._changed:
            for job in self._jobs.values():
                if not (job.finished or self._is_own(job) or job.owner == NOBODY):
                    by_owner.setdefault(job.owner, []).append(job)
        for owner, its_jobs in by_owner.items():
            with self._replica.taking_over(owner) as is_gone:
                for job in its_jobs if is_gone else ():
                    stored = self._stored(job)
                    if stored is None or stored.owner != owner or stored.finished:
                        continue
                    if job_store.is_cancelled(stored):
                        job_store.remove(stored)
                    else:
                        yield stored

    def _stored(self, job: Job) -> Job | None:
        try:
            return self._read(job.folder)
        except job_store.READ_ERRORS:
            return None

    def remove_orphans(self, known: Mapping[str, Job], keep_seconds: float) -> None:
        """Remove what holds no job, and since ``keep_seconds`` what holds one that cannot be read."""
        for path in self._folder.iterdir():
            if path.name not in known and job_store.age_seconds(path) > ORPHAN_SECONDS:
                job_store.remove_unreadable(path, keep_seconds)
