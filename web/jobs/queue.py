"""Jobs that take longer than a click: a queue with one worker thread, with position, progress, preview and time limits.

The page has two queues, one for videos and one for pictures and previews, for which a visitor waits. Both share the
device with the live sessions: a job takes the device slot for each step.
"""
from __future__ import annotations

import contextlib
import itertools
import logging
import math
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import StreamdreamError, UsageError
from streamdream.system import torch_threads

from ..core import histogram, limits

Work = Callable[["Job"], None]
DeviceSlot = Callable[[], AbstractContextManager[object]]
MAX_REMEMBERED = 1000
"""Visitors and addresses whose last job is remembered."""
MAX_LOGGED = 200
"""Characters of an error in the log."""
log = logging.getLogger(__name__)


class Cancelled(StreamdreamError):
    """The visitor has cancelled the job, or has left."""


@dataclass(eq=False)
class Job:
    """One job. The page names it by ``token``, which is also the permission to fetch the result."""

    title: str
    visitor: str
    work: Work
    folder: Path
    """A folder of this job only, removed with it."""
    address: str = ""
    """Of the visitor."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    number: int = 0
    """Order of submission."""
    state: str = "waiting"
    """``waiting``, ``running``, ``done``, ``failed``, ``cancelled``."""
    done: int = 0
    total: int = 0
    """Frames or steps; ``total`` is 0 while it is unknown."""
    picture: Any = None
    """The newest preview, [H, W, 3] RGB."""
    before: NDArray[np.uint8] | None = None
    """The input that a finished picture is compared with."""
    result: Path | None = None
    answer: Any = None
    """A result that is no file."""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    began_seconds: float = 0.0
    first_seconds: float = 0.0
    """When the first frame was done; the time before it is loading."""
    ended_seconds: float = 0.0
    spare_seconds: Callable[[Job], float] = lambda job: math.inf
    """How much longer it may run, infinite while no other visitor waits."""
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def check(self) -> None:
        """Raise Cancelled, or StreamdreamError if the time limit is exceeded. To be called often by the work."""
        if self.stop.is_set():
            raise Cancelled("cancelled")
        if self.spare_seconds(self) < 0:
            raise StreamdreamError("the time limit is reached and others wait; dream a shorter part, or a smaller size")

    def progress(self, done: int, total: int = 0) -> None:
        """Report finished frames or steps. Raises as ``check``."""
        self.check()
        if not self.done and done:
            self.first_seconds = self.clock()
        self.done, self.total = done, total or self.total
        self.changed.set()

    def show(self, picture: Any) -> None:
        self.picture = picture
        self.changed.set()

    @property
    def share(self) -> float:
        """Fraction that is done, 0..1; 0 while it is unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def left_seconds(self) -> float | None:
        """Estimate at the speed so far; None while that is unknown."""
        if self.state != "running" or self.done < 2 or not self.total:
            return None
        speed = (self.done - 1) / max(1e-6, self.clock() - self.first_seconds)
        return max(0, self.total - self.done) / speed


class JobQueue:
    """A queue of jobs and its worker thread. Thread-safe.

    Round-robin over addresses, and over the visitors of each. A job that has run for ``max_seconds`` ends when another
    visitor waits, and after ``max_shared_seconds`` when another address does.
    """

    def __init__(self, name: str, folder: Path, max_jobs: int = limits.MAX_VIDEOS,
                 max_per_visitor: int = limits.MAX_JOBS_PER_VISITOR,
                 max_seconds: float = math.inf, max_shared_seconds: float = math.inf, keep_seconds: float = 1800.0,
                 max_per_address: int = limits.MAX_JOBS_PER_ADDRESS,
                 clock: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None) -> None:
        self.name, self.folder = name, folder
        self._counts = Counter[str]() if counts is None else counts
        """Ended jobs by state, and by duration as in ``core/histogram.py``."""
        self._max_jobs, self._max_per_visitor, self._max_per_address = max_jobs, max_per_visitor, max_per_address
        self._max_seconds, self._max_shared_seconds, self._keep_seconds = max_seconds, max_shared_seconds, keep_seconds
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._last_served: dict[tuple[str, str], int] = {}
        """By kind ("visitor" or "address") and name: the number of the job that was served last."""
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._worker = threading.Thread(target=self._run, name=f"streamdream-{name}", daemon=True)
        self._worker.start()

    def submit(self, visitor: str, title: str, work: Work, address: str = "") -> Job:
        """Add a job. An unknown ``address`` ("") counts as one of the visitor only. Raises UsageError when the queue,
        or the share of the visitor or the address, is full.
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
            job = Job(title, visitor, work, self.folder, address, number=next(self._numbers), clock=self._clock)
            job.folder, job.spare_seconds = self.folder / job.token, self.spare_seconds
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

    def ahead_seconds(self) -> float | None:
        """Return the estimate of the running job; None if there is none."""
        with self._changed:
            running = next((job for job in self._jobs.values() if job.state == "running"), None)
        return running.left_seconds if running else None

    def spare_seconds(self, job: Job) -> float:
        """Return how much longer a job may run; below 0 it has to end. Infinite while no other visitor waits."""
        others = [other for other in self._all() if other.state == "waiting" and other.visitor != job.visitor]
        if job.state != "running" or not others:
            return math.inf
        shared = any(other.address != job.address for other in others)
        max_seconds = min(self._max_seconds, self._max_shared_seconds) if shared else self._max_seconds
        return max_seconds - (self._clock() - job.began_seconds)

    def visitors(self) -> set[str]:
        """Return the visitors who have a job or a result."""
        return {job.visitor for job in self._all()}

    def cancel(self, job: Job) -> None:
        """Tell the job to end, and remove its result."""
        with self._changed:
            job.stop.set()
            if job.state == "waiting":
                self._end(job, "cancelled")
            self._changed.notify_all()

    def discard(self, job: Job) -> None:
        """Cancel the job, and forget it with its result."""
        self.cancel(job)
        with self._changed:
            if job.finished:
                self._jobs.pop(job.token, None)
                self._remove(job)

    def forget(self, visitor: str) -> None:
        """Discard the jobs and results of a visitor."""
        for job in self._all():
            if job.visitor == visitor:
                self.discard(job)
        with self._changed:
            self._last_served.pop(("visitor", visitor), None)

    def sweep(self) -> None:
        """Discard results that were not fetched in time."""
        for job in self._all():
            if job.finished and self._clock() - job.ended_seconds > self._keep_seconds:
                self.discard(job)
        with self._changed:
            for key in sorted(self._last_served, key=self._last_served.__getitem__)[:-MAX_REMEMBERED]:
                del self._last_served[key]

    def close(self) -> None:
        """Cancel all jobs, wait for the worker, remove the folder."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self._all():
            self.discard(job)
        self._worker.join(timeout=10)
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
            self._run_job(job)

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
            job.folder.mkdir(mode=0o700)
            with torch_threads.use_threads(torch_threads.default_threads()):  # a live session may use fewer meanwhile
                job.work(job)
            job.check()
        except Cancelled:
            state = "cancelled"
        except StreamdreamError as error:
            state, job.error = "failed", str(error)
        except Exception:
            log.exception("%s failed unexpectedly", self.name)
            state, job.error = "failed", "internal error; see the server's log"
        with self._changed:
            self._end(job, state)
            is_cancelled = job.stop.is_set()
        if is_cancelled:
            self.discard(job)

    def _end(self, job: Job, state: str) -> None:
        if state != "done":  # before the state changes, which promises that nothing is left
            self._remove(job)
        ran_seconds = self._clock() - job.began_seconds if job.state == "running" else 0.0
        job.state, job.ended_seconds, job.work = state, self._clock(), _nothing
        self._counts[f"jobs {self.name} {state}"] += 1
        if ran_seconds:
            self._counts[histogram.bucket(f"job {self.name}", ran_seconds, histogram.JOB_BOUNDS)] += 1
            self._counts[f"job {self.name} ms"] += round(1e3 * ran_seconds)
        log.info("a job has ended", extra={"facts": {
            **self._facts(job), "state": state, "seconds": round(ran_seconds, 3), "steps": job.done,
            **({"error": job.error[:MAX_LOGGED]} if job.error else {})}})
        job.changed.set()

    def _facts(self, job: Job) -> dict[str, Any]:
        """Return what the log says of a job: no secret, and no name that a visitor has chosen."""
        address = "" if job.address.startswith("visitor ") else job.address
        return {"job": job.token[:4], "queue": self.name, "address": address}

    @property
    def lengths(self) -> Counter[str]:
        """Return the number of jobs that wait and run."""
        return Counter(job.state for job in self._all() if not job.finished)

    def _remove(self, job: Job) -> None:
        job.answer = job.picture = job.before = job.result = None
        with contextlib.suppress(OSError):
            shutil.rmtree(job.folder)


class StepwiseDeviceSlot:
    """Device slots that end with each step, so that no live session waits for a whole picture.

    ``with slot():`` holds the device; ``slot.yield_device()``, called within it after each step, releases it, calls
    ``between``, and waits for it again.
    """

    def __init__(self, device_slot: DeviceSlot, between: Callable[[], None] = lambda: None) -> None:
        self._device_slot, self._between = device_slot, between
        self._held: AbstractContextManager[object] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Any:
        self._begin()
        try:
            yield
        finally:
            self._end()

    def yield_device(self) -> None:
        if self._held is not None:
            self._end()
            self._between()
            self._begin()

    def _begin(self) -> None:
        held = self._device_slot()
        held.__enter__()
        self._held = held

    def _end(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)


def _nothing(job: Job) -> None:
    """Replaces the work of a finished job, so that what the work references can be freed."""
