"""Jobs that take longer than a click: a queue with one worker thread, positions and time limits.

The page has two queues, one for videos and one for pictures and previews, for which a visitor waits. Both share the
device with the live sessions: a job takes the device slot for each step. A queue that ``keeps`` its folder leaves its
jobs there when it is closed, or its process dies, and the next queue in that folder goes on with them.
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
from . import job_store, previews
from .job import Cancelled, Job, Work
from .request import JobRequest
from .uploads import Upload

MAX_REMEMBERED = 1000
"""Visitors and addresses whose last job is remembered."""
MAX_DURATIONS = 8
"""Durations of ended jobs from which waiting times are estimated."""
MAX_ATTEMPTS = 3
"""How often a job is begun whose server did not come to its end: it may be what ends the server."""
MAX_LOGGED = 200
"""Characters of an error in the log."""
log = logging.getLogger(__name__)


class JobQueue:
    """A queue of jobs and its worker thread. Thread-safe.

    Round-robin over addresses, and over the visitors of each. A job that has run for ``max_seconds`` ends when another
    visitor waits, and after ``max_shared_seconds`` when another address does. ``work_of`` returns what a request asks
    for.
    """

    def __init__(self, name: str, folder: Path, max_jobs: int = limits.MAX_VIDEOS,
                 max_per_visitor: int = limits.MAX_JOBS_PER_VISITOR,
                 max_seconds: float = math.inf, max_shared_seconds: float = math.inf, keep_seconds: float = 1800.0,
                 max_per_address: int = limits.MAX_JOBS_PER_ADDRESS,
                 clock: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None,
                 work_of: Callable[[JobRequest], Work] = lambda request: _nothing, keeps: bool = False) -> None:
        self.name, self.folder = name, folder
        self._work_of, self._keeps = work_of, keeps
        self._counts = Counter[str]() if counts is None else counts
        """Ended jobs by state, and by duration as in ``core/histogram.py``."""
        self._max_jobs, self._max_per_visitor, self._max_per_address = max_jobs, max_per_visitor, max_per_address
        self._max_seconds, self._max_shared_seconds, self._keep_seconds = max_seconds, max_shared_seconds, keep_seconds
        self._clock = clock
        self._durations: deque[float] = deque(maxlen=MAX_DURATIONS)
        self._jobs: dict[str, Job] = {}
        self._last_served: dict[tuple[str, str], int] = {}
        """By kind ("visitor" or "address") and name: the number of the job that was served last."""
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if keeps:
            self._take_up()
        self._worker = threading.Thread(target=self._run, name=f"streamdream-{name}", daemon=True)
        self._worker.start()

    def _take_up(self) -> None:
        """Go on with the jobs of the queue that had this folder before."""
        for job in job_store.load(self.folder, self._work_of, self._clock, self._keep_seconds):
            job.spare_seconds = self.spare_seconds
            self._jobs[job.token] = job
        self._numbers = itertools.count(1 + max((job.number for job in self._jobs.values()), default=0))
        if waiting := sum(not job.finished for job in self._jobs.values()):
            log.info("%d %s go on from before the restart", waiting, self.name)

    def submit(self, visitor: str, title: str, work: Work | None = None, address: str = "",
               request: JobRequest | None = None, files: Mapping[str, Upload] | None = None) -> Job:
        """Add a job: either ``work``, or a ``request`` with its files by their names in the job's folder.

        An unknown ``address`` ("") counts as one of the visitor only. Raises UsageError when the queue, or the share of
        the visitor or the address, is full.
        """
        address = address or f"visitor {visitor}"
        self.sweep()
        with self._changed:
            unfinished = [job for job in self._jobs.values() if not job.finished]
            mine = sum(job.visitor == visitor for job in unfinished)
            if self._closed:
                raise UsageError("this server is shutting down")
            if mine >= self._max_per_visitor:
                raise UsageError("your last job is not finished; cancel it, or wait" if self._max_per_visitor == 1
                                 else f"you have {mine} waiting or running; cancel one, or wait")
            if sum(job.address == address for job in unfinished) >= self._max_per_address:
                raise UsageError(f"{self._max_per_address} from your address wait or run already; try again later")
            if len(unfinished) >= self._max_jobs:
                raise UsageError("the queue is full; try again in a few minutes")
            job = Job(title, visitor, work or (self._work_of(request) if request else _nothing), self.folder, address,
                      request=request, number=next(self._numbers), clock=self._clock)
            job.folder, job.spare_seconds = self.folder / job.token, self.spare_seconds
            if request is not None:
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
            running = sum(other.state == "running" for other in self._jobs.values())
            return running + self._queue().index(job)

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return any(not job.finished for job in self._all())

    def wait_seconds(self, job: Job) -> float | None:
        """Return the estimated time until a waiting job begins; None while nothing is known to estimate it from."""
        with self._changed:
            running = next((other for other in self._jobs.values() if other.state == "running"), None)
            usual = sum(self._durations) / len(self._durations) if self._durations else None
        ahead = self.position(job) - (running is not None)
        left = 0.0 if running is None else running.left_seconds or usual
        if left is None or (ahead and usual is None):
            return None
        return left + ahead * (usual or 0.0)

    def spare_seconds(self, job: Job) -> float:
        """Return how much longer a job may run; below 0 it has to end. Infinite while no other visitor waits."""
        if job.state != "running":
            return math.inf
        others = [other for other in self._all() if other.state == "waiting" and other.visitor != job.visitor]
        if not others:
            return math.inf
        shared = any(other.address != job.address for other in others)
        max_seconds = min(self._max_seconds, self._max_shared_seconds) if shared else self._max_seconds
        return max_seconds - (self._clock() - job.began_seconds)

    def jobs(self) -> list[Job]:
        """Return all jobs that are not forgotten, by the order of their submission."""
        return sorted(self._all(), key=lambda job: job.number)

    def cancel(self, job: Job) -> None:
        """Tell the job to end, and remove its result."""
        with self._changed:
            job.stop.set()
            if job.state == "waiting":
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
        with self._changed:
            for key in sorted(self._last_served, key=self._last_served.__getitem__)[:-MAX_REMEMBERED]:
                del self._last_served[key]

    def close(self) -> None:
        """Stop the worker. Then a folder that is not kept is removed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self._all():
            if self._keeps and job.request is not None and not job.stop.is_set():
                job.interrupted = True
                job.stop.set()
            else:
                self.discard(job)
        self._worker.join(timeout=10)
        if not self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Job]:
        with self._changed:
            return list(self._jobs.values())

    def _queue(self) -> list[Job]:
        """Return the waiting jobs in the order in which they will run."""
        waiting = sorted((job for job in self._jobs.values() if job.state == "waiting"), key=lambda job: job.number)
        for kind in ("visitor", "address"):
            waiting = self._round_robin(waiting, kind)
        return waiting

    def _round_robin(self, jobs: list[Job], kind: str) -> list[Job]:
        """Order jobs round-robin over visitors or addresses; the one served least recently is first."""
        earlier: Counter[str] = Counter()  # jobs of the same visitor or address
        order = []
        for place, job in enumerate(jobs):
            name = getattr(job, kind)
            order.append(
                (earlier[name], 0 if earlier[name] else self._last_served.get((kind, name), 0), place)
            )
            earlier[name] += 1
        return [jobs[place] for _, _, place in sorted(order)]

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
            self._changed.wait_for(lambda: self._closed or self._queue())
            if self._closed:
                return None
            job = self._queue()[0]
            job.state, job.began_seconds = "running", self._clock()
            self._last_served["visitor", job.visitor] = self._last_served["address", job.address] = job.number
            return job

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
                job.state, job.attempts, job.error = "waiting", max(0, job.attempts - 1), ""
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
        """Return the number of jobs that wait and run."""
        return Counter(job.state for job in self._all() if not job.finished)

    def _remove(self, job: Job, but_record: bool = False) -> None:
        job.answer = job.picture = job.result = None
        job_store.remove(job, but_record and self._keeps and job.request is not None)


def _nothing(job: Job) -> None:
    """Replaces the work of a finished job, so that what the work references can be freed."""
