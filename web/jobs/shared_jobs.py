"""The jobs that other replicas have in a folder that all share.

Each job has one owner, the replica that runs it; the others know it from its record, which the owner writes again as
the job goes on. Another replica takes over the jobs of one that has ended.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import job_store
from .job import Job

if TYPE_CHECKING:
    from ..core.replica import Replica

ORPHAN_SECONDS = 3600.0
"""How old a folder without a record is when it is removed: a younger one may be in the making."""
log = logging.getLogger(__name__)


class SharedJobs:
    """The records in ``folder``; ``read`` returns the job of one, as ``job_store.read``."""

    def __init__(self, folder: Path, replica: Replica, read: Callable[[Path], Job]) -> None:
        self._folder, self._replica, self._read = folder, replica, read
        self._stamps: dict[str, tuple[int, int]] = {}
        """Time and number of the file of each record that was read, by the token of the job."""

    def is_own(self, job: Job) -> bool:
        return job.owner == self._replica.name

    def changes(self, known: Mapping[str, Job]) -> tuple[set[str], list[Job]]:
        """Return the tokens of all jobs that are there, and those of other replicas that are new or have changed. A
        finished job changes no more.
        """
        present, changed = {path.name for path in self._folder.iterdir()}, []
        for token in present:
            job = known.get(token)
            if (job is None or not (job.finished or self.is_own(job))) and (new := self._read_if_changed(token)):
                changed.append(new)
        for token in self._stamps.keys() - present:
            del self._stamps[token]
        return present, changed

    def _read_if_changed(self, token: str) -> Job | None:
        path = self._folder / token
        try:
            status = (path / job_store.RECORD).stat()
            stamp = status.st_mtime_ns, status.st_ino
            if self._stamps.get(token) == stamp:
                return None
            self._stamps[token] = stamp
            return self._read(path)
        except FileNotFoundError:  # in the making, or being removed
            return None
        except job_store.READ_ERRORS as error:
            log.warning("a stored job cannot be read: %s", error)
            return None

    def abandoned(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield those of the ``jobs`` whose replicas are gone, as they are stored now; the caller takes each into its
        own before it asks for the next one. One that was cancelled is removed.
        """
        by_owner: dict[str, list[Job]] = {}
        for job in jobs:
            by_owner.setdefault(job.owner, []).append(job)
        for owner, its_jobs in by_owner.items():
            with self._replica.taking_over(owner) as is_gone:
                for job in its_jobs if is_gone else ():
                    if (stored := self._stored(job)) and stored.owner == owner and not stored.finished:
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
        """Remove folders that hold no job, and since ``keep_seconds`` those of jobs that cannot be read."""
        for path in self._folder.iterdir():
            if path.name not in known and job_store.age_seconds(path) > ORPHAN_SECONDS:
                job_store.remove_unreadable(path, keep_seconds)
