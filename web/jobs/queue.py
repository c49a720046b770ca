"""Jobs that take longer than a click: a queue with a worker thread, positions and time limits.

The page has two queues, one for videos and one for pictures and previews, for which a visitor waits. Both share the
device with the live sessions: a job takes the device slot for each step. A queue that ``keeps`` its folder leaves its
jobs there when it is closed, or its process dies, and the next queue in that folder goes on with them. With a
``replica``, several servers share the folder: what waits is begun by the first one that is free (``shared_jobs``).
"""
from __future__ import annotations

import itertools
import logging
import math
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from streamdream.errors import StreamdreamError, UsageError
from streamdream.system import torch_threads

from ..core import limits
from ..core.messages import visitor_message
from ..core.replica import NOBODY, Replica
from . import job_store, previews
from .job import Cancelled, Job, Postponed, Work
from .job_statistics import JobStatistics
from .queue_limits import QueueLimits
from .request import JobRequest
from .round_robin import RoundRobin
from .shared_jobs import SharedJobs
from .uploads import Upload

MAX_ATTEMPTS = 3
"""How often a job is begun whose server did not come to its end: it may be what ends the server."""
RETRY_SECONDS = 1.0
"""After a job that waits could not be begun."""
POSTPONE_SECONDS, MAX_POSTPONED_SECONDS = 20.0, 600.0
"""After which a job that could not go on is begun again, and for how long that is tried."""
CLOSE_SECONDS = 10.0
"""How long running jobs are waited for when the queue is closed."""
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
        self._work_of, self._keeps, self._replica = work_of, keeps, replica
        self._limits = QueueLimits(max_jobs, max_per_visitor, max_per_address, max_seconds, max_shared_seconds)
        self._keep_seconds, self._clock = keep_seconds, clock
        self._statistics = JobStatistics(name, Counter[str]() if counts is None else counts)
        self._jobs: dict[str, Job] = {}
        self._round_robin = RoundRobin()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = self._draining = False
        for path in (folder, self._private_folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._owner, self._nobody = (replica.name, NOBODY) if replica else ("", "")
        """Whose a job is that runs here, or that waits."""
        self._shared = SharedJobs(folder, replica, self._jobs, self._changed, self._read) if replica else None
        if self._shared:
            self.synchronize()
        elif keeps:
            self._take_up()
        self._workers = [threading.Thread(target=self._run, name=f"streamdream-{name}-{number}", daemon=True)
                         for number in range(workers)]
        for worker in self._workers:
            worker.start()

    def _read(self, path: Path) -> Job:
        """Return the job of a folder, as it was stored. Raises as ``job_store.read``."""
        job = job_store.read(path, self._work_of, self._clock)
        job.spare_seconds = self.spare_seconds
        return job

    def _take_up(self) -> None:
        """Go on with the jobs of the queue that had this folder before."""
        for job in job_store.load(self.folder, self._read, self._keep_seconds):
            job.owner = self._owner
            self._jobs[job.token] = job
        self._numbers = itertools.count(1 + max((job.number for job in self._jobs.values()), default=0))
        if waiting := sum(not job.finished for job in self._jobs.values()):
            log.info("%d %s go on from before the restart", waiting, self.name)

    def synchronize(self) -> None:
        """As ``SharedJobs.synchronize``; nothing where the folder is this server's own."""
        if self._shared:
            self._shared.synchronize(self.discard)

    def _is_own(self, job: Job) -> bool:
        return job.owner == self._owner

    def _is_lost(self, job: Job) -> bool:
        return self._shared is not None and job.request is not None and self._shared.is_lost(job)

    def _claim(self, job: Job) -> bool:
        """Make a waiting job this server's own, and return whether it is."""
        return self._shared is None or job.request is None or self._shared.claim(job)

    def drain(self) -> None:
        """Begin no more jobs with a request: they wait for other replicas, or for the next server."""
        with self._changed:
            self._draining = True

    @property
    def is_running(self) -> bool:
        """Whether a job runs here. Does not block."""
        return any(job.state == "running" and self._is_own(job) for job in list(self._jobs.values()))

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
            self._limits.check(visitor, address, unfinished,
                               sum(job.owner in (self._owner, self._nobody) for job in unfinished))
            job = Job(title, visitor, work or (self._work_of(request) if request else _nothing), self.folder, address,
                      request=request, number=next(self._numbers), clock=self._clock)
            job.folder, job.owner = self._private_folder / job.token, self._owner
            job.spare_seconds = self.spare_seconds
            if request is not None:
                job.folder, job.owner = self.folder / job.token, self._nobody
                job_store.make_folder(job, files or {})
                if not self._save(job) and self._shared:
                    job_store.remove(job)
                    raise UsageError("this server cannot store the job")
            self._jobs[job.token] = job
            self._changed.notify_all()
        self._statistics.log(job, "a job waits")
        return job

    def get(self, token: str) -> Job | None:
        with self._changed:
            return self._jobs.get(token)

    def position(self, job: Job) -> int:
        """Return the number of jobs before it, the running ones included; 0 when it runs."""
        with self._changed:
            if job.state != "waiting":
                return 0
            queue = self._queue()
            return len(self._running()) + (queue.index(job) if job in queue else len(queue))

    @property
    def is_busy(self) -> bool:
        """Whether a job waits, or runs here."""
        with self._changed:
            return bool(self._queue()) or self.is_running

    def wait_seconds(self, job: Job) -> float | None:
        """Return the estimated time until a waiting job begins; None while nothing is known to estimate it from."""
        with self._changed:
            running = self._running()
            return self._statistics.wait_seconds(self.position(job) - len(running), running)

    def spare_seconds(self, job: Job) -> float:
        """Return how much longer a job may run; below 0 it has to end. Infinite while no other visitor waits."""
        if job.state != "running" or not self._is_own(job):
            return math.inf
        with self._changed:
            waiting = self._queue()
        return self._limits.spare_seconds(job, waiting, self._clock() - job.began_seconds)

    def jobs(self) -> list[Job]:
        """Return all jobs that are not forgotten, by the order of their submission."""
        return sorted(self._all(), key=lambda job: (job.submitted_at, job.number))

    def cancel(self, job: Job) -> None:
        """Tell the job to end, and remove its result."""
        with self._changed:
            job.stop.set()
            if job.state == "waiting":
                self._end(job, "cancelled")
            elif not (job.finished or self._is_own(job)):
                job_store.cancel(job)
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

    def interrupt(self) -> None:
        """Begin to close: running jobs that are kept end soon, to go on later; all others are cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self._all():
            if not (self._keeps and job.request is not None):
                self.discard(job)
            elif job.state == "running" and self._is_own(job) and not job.stop.is_set():
                job.interrupted = True
                job.stop.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Stop the workers within that time. Then a folder that is not kept is removed."""
        self.interrupt()
        until_seconds = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, until_seconds - time.monotonic()))
        if self._replica and any(worker.is_alive() for worker in self._workers):
            self._replica.outlives_close = True
        if not self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Job]:
        with self._changed:
            return list(self._jobs.values())

    def _running(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == "running"]

    def _queue(self) -> list[Job]:
        """Return the waiting jobs in the order in which they will run."""
        return self._round_robin.order(job for job in self._jobs.values() if job.state == "waiting")

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
            while not self._closed:
                waiting, now = self._queue(), self._clock()
                for job in waiting:
                    if (self._draining and job.request is not None) or job.begins_after_seconds > now:
                        continue
                    if self._claim(job):
                        job.state, job.began_seconds = "running", self._clock()
                        self._round_robin.served(job)
                        return job
                self._changed.wait(RETRY_SECONDS if waiting else None)
            return None

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
        except Postponed as error:
            now = self._clock()
            job.postponed_since_seconds = job.postponed_since_seconds or now
            job.begins_after_seconds = now + POSTPONE_SECONDS
            is_over = now - job.postponed_since_seconds > MAX_POSTPONED_SECONDS
            state, job.error = "failed" if is_over else "waiting", str(error)
        except StreamdreamError as error:
            state, job.error = "failed", visitor_message(error)
        except Exception:
            log.exception("%s failed unexpectedly", self.name)
            state, job.error = "failed", "internal error; see the server's log"
        with self._changed:
            if (job.interrupted or not job.stop.is_set()) and self._is_lost(job):
                self._jobs.pop(job.token, None)  # its files are another server's now
                return
            if job.interrupted and state != "done":
                state = "waiting"
            if state == "waiting":
                job.attempts, job.error, job.owner, job.state = max(0, job.attempts - 1), "", self._nobody, "waiting"
                self._save(job)
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
        if state != "cancelled":
            self._save(job)
        self._statistics.ended(job, ran_seconds)
        job.changed.set()

    def _save(self, job: Job) -> bool:
        """Write the record of a job that is kept; return whether that is done. ``synchronize`` tries again."""
        is_saved = self._keeps and job_store.save(job)
        job.changed_since_save = not is_saved
        return is_saved

    @property
    def lengths(self) -> Counter[str]:
        """Return the number of jobs that wait, and that run here."""
        with self._changed:
            return Counter(waiting=len(self._queue()), running=sum(map(self._is_own, self._running())))

    def _remove(self, job: Job, but_record: bool = False) -> None:
        job.answer = job.picture = job.result = None
        job_store.remove(job, but_record and self._keeps and job.request is not None)


def _nothing(job: Job) -> None:
    """Replaces the work of a finished job, so that what the work references can be freed."""
