"""Jobs that take longer than a click: a queue with a worker thread, positions and time limits.

The page has two queues, one for videos and one for pictures and previews, for which a visitor waits. Both share the
device with the live sessions: a job takes the device slot for each step. A queue that ``keeps`` its folder leaves its
jobs there when it is closed, or its process dies, and the next queue in that folder goes on with them. With a
``replica``, several servers share the folder, and it is another one of them that goes on (``shared_jobs``).
"""
from __future__ import annotations

import itertools
import logging
import math
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamdream.errors import StreamdreamError, UsageError
from streamdream.system import torch_threads

from ..core import histogram, limits
from ..core.messages import visitor_message
from ..core.replica import NOBODY, Replica
from . import job_store, previews
from .job import Cancelled, Job, Work
from .queue_limits import QueueLimits
from .request import JobRequest
from .round_robin import RoundRobin
from .shared_jobs import SharedJobs
from .uploads import Upload

MAX_DURATIONS = 8
"""Durations of ended jobs from which waiting times are estimated."""
MAX_ATTEMPTS = 3
"""How often a job is begun whose server did not come to its end: it may be what ends the server."""
MAX_LOGGED = 200
"""Characters of an error in the log."""
log = logging.getLogger(__name__)


class JobQueue:
    """A queue of jobs and its worker threads. Thread-safe.

    Round-robin over addresses, and over the visitors of each. A job that has run for ``max_seconds`` ends when another
    visitor waits, and after ``max_shared_seconds`` when another address does. ``work_of`` returns what a request asks
    for.
    """

    def __init__(self, name: str, folder: Path, max_jobs: int = limits.MAX_VIDEOS,
                 max_per_visitor: int = limits.MAX_JOBS_PER_VISITOR,
                 max_seconds: float = math.inf, max_shared_seconds: float = math.inf, keep_seconds: float = 1800.0,
                 max_per_address: int = limits.MAX_JOBS_PER_ADDRESS,
                 clock: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None,
                 work_of: Callable[[JobRequest], Work] = lambda request: _nothing, keeps: bool = False,
                 replica: Replica | None = None, private_folder: Path | None = None, workers: int = 1) -> None:
        self.name, self.folder = name, folder
        self._private_folder = private_folder or folder
        """For jobs that nobody misses after a restart."""
        self._work_of, self._keeps = work_of, keeps
        self._counts = Counter[str]() if counts is None else counts
        """Ended jobs by state, and by duration as in ``core/histogram.py``."""
        self._limits = QueueLimits(max_jobs, max_per_visitor, max_per_address, max_seconds, max_shared_seconds)
        self._keep_seconds, self._clock = keep_seconds, clock
        self._durations: deque[float] = deque(maxlen=MAX_DURATIONS)
        self._jobs: dict[str, Job] = {}
        self._round_robin = RoundRobin()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = self._draining = False
        for path in (folder, self._private_folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._owner = replica.name if replica else ""
        self._shared = SharedJobs(folder, replica, lambda path: job_store.read(path, work_of, clock)
                                  ) if replica else None
        if self._shared:
            self.synchronize()
        elif keeps:
            self._take_up()
        self._workers = [threading.Thread(target=self._run, name=f"streamdream-{name}-{number}", daemon=True)
                         for number in range(workers)]
        for worker in self._workers:
            worker.start()

    def _take_up(self) -> None:
        """Go on with the jobs of the queue that had this folder before."""
        for job in job_store.load(self.folder, self._work_of, self._clock, self._keep_seconds):
            job.spare_seconds = self.spare_seconds
            job.state, job.owner = job.state if job.finished else "waiting", self._owner
            self._jobs[job.token] = job
        self._numbers = itertools.count(1 + max((job.number for job in self._jobs.values()), default=0))
        if waiting := sum(not job.finished for job in self._jobs.values()):
            log.info("%d %s go on from before the restart", waiting, self.name)

    # --- other replicas -----------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Learn what other replicas have done in the folder, tell them how far the jobs here are, and go on with the
        jobs of replicas that have ended.
        """
        if self._shared is None:
            return
        known = {job.token: job for job in self._all() if job.request is not None}
        present, changed = self._shared.changes(known)
        with self._changed:
            for job in changed:
                earlier = self._jobs.get(job.token)
                if earlier is None or not self._is_own(earlier):
                    self._take(job, earlier)
            for token in known.keys() - present:
                if known[token].finished or not self._is_own(known[token]):
                    self._jobs.pop(token, None)
        for job in self._all():
            if job.request is not None and not job.finished and self._is_own(job):
                self._tell(job)
        if not (self._draining or self._closed):
            self._take_over()

    def _tell(self, job: Job) -> None:
        """Write how far a job of this server is, for the others; end it if one of them has cancelled it."""
        if job_store.is_cancelled(job):
            self.discard(job)
        elif job.changed_since_save:
            job.changed_since_save = False
            previews.save(job)
            with self._changed:  # not over the record of its end
                if job.state == "running":
                    self._save(job)

    def _take(self, job: Job, earlier: Job | None = None) -> None:
        job.spare_seconds = self.spare_seconds
        if earlier is not None and earlier.stop.is_set():
            job.stop.set()
        self._jobs[job.token] = job

    def _take_over(self) -> None:
        assert self._shared is not None
        others = [job for job in self._all() if not (job.finished or job.stop.is_set() or self._is_own(job))]
        for job in self._shared.abandoned(others):
            job.owner, job.state, job.number = self._owner, "waiting", next(self._numbers)
            if job_store.save(job):
                log.info("a job goes on here: its server has ended", extra={"facts": self._facts(job)})
                with self._changed:
                    self._take(job)
                    self._changed.notify_all()

    def _is_own(self, job: Job) -> bool:
        return job.owner == self._owner

    def drain(self) -> None:
        """Begin no more jobs with a request; leave those that wait to other replicas."""
        with self._changed:
            self._draining = True
            for job in self._queue():
                self._release(job)

    def _release(self, job: Job) -> None:
        """Leave a job to the other replicas, or to the next server."""
        if job.request is not None:
            job.state, job.owner = "waiting", NOBODY if self._shared else ""
            self._save(job)

    @property
    def is_running(self) -> bool:
        """Whether a job runs here."""
        return any(job.state == "running" and self._is_own(job) for job in self._all())

    def submit(self, visitor: str, title: str, work: Work | None = None, address: str = "",
               request: JobRequest | None = None, files: Mapping[str, Upload] | None = None) -> Job:
        """Add a job: either ``work``, or a ``request`` with its files by their names in the job's folder.

        An unknown ``address`` ("") counts as one of the visitor only. Raises UsageError when the queue, or the share of
        the visitor or the address, is full.
        """
        address = address or f"visitor {visitor}"
        self.sweep()
        with self._changed:
            if self._closed:
                raise UsageError("this server is shutting down")
            unfinished = [job for job in self._jobs.values() if not (job.finished or job.stop.is_set())]
            self._limits.check(visitor, address, unfinished, sum(map(self._is_own, unfinished)))
            job = Job(title, visitor, work or (self._work_of(request) if request else _nothing), self.folder, address,
                      request=request, number=next(self._numbers), clock=self._clock)
            job.folder, job.owner = self._private_folder / job.token, self._owner
            job.spare_seconds = self.spare_seconds
            if request is not None:
                job.folder = self.folder / job.token
                job.owner = NOBODY if self._shared and self._draining else self._owner
                job_store.make_folder(job, files or {})
                self._save(job)
            self._jobs[job.token] = job
            self._changed.notify_all()
        log.info("a job waits", extra={"facts": self._facts(job)})
        return job

    def get(self, token: str) -> Job | None:
        with self._changed:
            return self._jobs.get(token)

    def position(self, job: Job) -> int:
        """Return the number of jobs before it, the running one included; 0 when it runs."""
        with self._changed:
            if job.state != "waiting":
                return 0
            running = sum(other.state == "running" and other.owner == job.owner for other in self._jobs.values())
            queue = self._queue(job.owner)
            return running + (queue.index(job) if job in queue else len(queue))

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs here."""
        return any(not job.finished and self._is_own(job) for job in self._all())

    def wait_seconds(self, job: Job) -> float | None:
        """Return the estimated time until a waiting job begins; None while nothing is known to estimate it from."""
        if not self._is_own(job):
            return None
        with self._changed:
            running = next((other for other in self._jobs.values() if other.state == "running" and self._is_own(other)),
                           None)
            usual = sum(self._durations) / len(self._durations) if self._durations else None
        ahead = self.position(job) - (running is not None)
        left = 0.0 if running is None else running.left_seconds or usual
        if left is None or (ahead and usual is None):
            return None
        return left + ahead * (usual or 0.0)

    def spare_seconds(self, job: Job) -> float:
        """Return how much longer a job may run; below 0 it has to end. Infinite while no other visitor waits."""
        if job.state != "running" or not self._is_own(job):
            return math.inf
        waiting = [other for other in self._all() if other.state == "waiting" and self._is_own(other)]
        return self._limits.spare_seconds(job, waiting, self._clock() - job.began_seconds)

    def jobs(self) -> list[Job]:
        """Return all jobs that are not forgotten, by the order of their submission."""
        return sorted(self._all(), key=lambda job: job.number)

    def cancel(self, job: Job) -> None:
        """Tell the job to end, and remove its result."""
        with self._changed:
            job.stop.set()
            if not (job.finished or self._is_own(job)):
                job_store.cancel(job)
            elif job.state == "waiting":
                self._end(job, "cancelled")
            elif not job.finished:  # a restart does not go on with it
                job_store.forget(job)
            self._changed.notify_all()

    def discard(self, job: Job) -> None:
        """Cancel the job, and forget it with its result."""
        self.cancel(job)
        with self._changed:
            if job.finished:
                self._jobs.pop(job.token, None)
                self._remove(job)

    def sweep(self) -> None:
        """Discard results that were kept for long enough."""
        for job in self._all():
            if job.finished and self._clock() - job.ended_seconds > self._keep_seconds:
                self.discard(job)
        if self._shared:
            self._shared.remove_orphans(self._jobs, self._keep_seconds)
        with self._changed:
            self._round_robin.prune()

    def close(self) -> None:
        """Stop the worker. Then a folder that is not kept is removed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self._all():
            if not self._is_own(job):
                continue
            if self._keeps and job.request is not None and not job.stop.is_set():
                if job.state == "waiting":
                    self._release(job)
                job.interrupted = True
                job.stop.set()
            else:
                self.discard(job)
        for worker in self._workers:
            worker.join(timeout=10)
        if not self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Job]:
        with self._changed:
            return list(self._jobs.values())

    def _queue(self, owner: str | None = None) -> list[Job]:
        """Return the waiting jobs of an owner, by default those here, in the order in which they will run."""
        owner = self._owner if owner is None else owner
        return self._round_robin.order([job for job in self._jobs.values()
                                        if job.state == "waiting" and job.owner == owner])

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._run_job(job)
            except Exception:  # as of a disk that fails; the queue goes on
                log.exception("%s failed unexpectedly", self.name)
                job.error, job.ended_seconds = "internal error; see the server's log", self._clock()
                job.state = "failed"

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._startable())
            if self._closed:
                return None
            job = self._startable()[0]
            job.state, job.began_seconds = "running", self._clock()
            self._round_robin.served(job)
            return job

    def _startable(self) -> list[Job]:
        return [job for job in self._queue() if not (self._draining and job.request is not None)]

    def _run_job(self, job: Job) -> None:
        state = "done"
        try:
            job.check()
            self._begin(job)
            with torch_threads.use_threads(torch_threads.default_threads()):  # a live session may use fewer meanwhile
                job.work(job)
            if job.stop.is_set() and not job.interrupted:  # what is whole is kept when the server stops, or time is up
                raise Cancelled("cancelled")
        except Cancelled:
            state = "cancelled"
        except StreamdreamError as error:
            state, job.error = "failed", visitor_message(error)
        except Exception:
            log.exception("%s failed unexpectedly", self.name)
            state, job.error = "failed", "internal error; see the server's log"
        with self._changed:
            if job.interrupted and state != "done":
                job.attempts, job.error = max(0, job.attempts - 1), ""
                self._release(job)
                return
            self._end(job, state)
            is_cancelled = job.stop.is_set() and not job.interrupted
        if is_cancelled:
            self.discard(job)

    def _begin(self, job: Job) -> None:
        if job.request is None:
            job.folder.mkdir(mode=0o700)
            return
        job.attempts += 1
        if job.attempts > MAX_ATTEMPTS:
            raise StreamdreamError(f"the server stopped {MAX_ATTEMPTS} times while it dreamed this")
        self._save(job)

    def _end(self, job: Job, state: str) -> None:
        if state == "done":
            previews.save(job)
            job.picture = None
        else:  # before the state changes, which promises that nothing is left
            self._remove(job, but_record=state == "failed")
        ran_seconds = self._clock() - job.began_seconds if job.state == "running" else 0.0
        job.state, job.ended_seconds, job.work = state, self._clock(), _nothing
        self._counts[f"jobs {self.name} {state}"] += 1
        if ran_seconds:
            self._counts[histogram.bucket(f"job {self.name}", ran_seconds, histogram.JOB_BOUNDS)] += 1
            self._counts[f"job {self.name} ms"] += round(1e3 * ran_seconds)
        if state == "done" and job.request is not None:
            self._durations.append(ran_seconds)
        if state != "cancelled":
            self._save(job)
        log.info("a job has ended", extra={"facts": {
            **self._facts(job), "state": state, "seconds": round(ran_seconds, 3), "steps": job.done,
            **({"error": job.error[:MAX_LOGGED]} if job.error else {})}})
        job.changed.set()

    def _save(self, job: Job) -> None:
        if self._keeps:
            job_store.save(job)

    def _facts(self, job: Job) -> dict[str, Any]:
        """Return what the log says of a job: no secret, and no name that a visitor has chosen."""
        address = "" if job.address.startswith("visitor ") else job.address
        return {"job": job.token[:4], "queue": self.name, "address": address}

    @property
    def lengths(self) -> Counter[str]:
        """Return the number of jobs that wait and run here."""
        return Counter(job.state for job in self._all() if not job.finished and self._is_own(job))

    def _remove(self, job: Job, but_record: bool = False) -> None:
        job.answer = job.picture = job.result = None
        job_store.remove(job, but_record and self._keeps and job.request is not None)


def _nothing(job: Job) -> None:
    """Replaces the work of a finished job, so that what the work references can be freed."""
