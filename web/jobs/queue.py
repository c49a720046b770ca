"""Work that takes longer than a click: a line of jobs for one runner, with position, progress, a look at it, an end.

The page keeps two such lines, one for videos and one for what a visitor waits for, such as a picture. Both share the
device with everybody who is live: a job's work takes a turn for every step.
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

Work = Callable[["Job"], None]
Turn = Callable[[], AbstractContextManager[object]]
MAX_PER_ADDRESS = 4
"""Jobs of one line that wait or run."""
MAX_REMEMBERED = 1000
"""Visitors and addresses of whom is known when they were served last."""
log = logging.getLogger(__name__)


class Cancelled(StreamdreamError):
    """The visitor wants it no more, or has gone."""


@dataclass(eq=False)
class Job:
    """One piece of work. ``token`` is what the page names it by, and whoever has it may fetch the result."""

    title: str
    visitor: str
    work: Work
    folder: Path
    """Its own, and gone with it."""
    address: str = ""
    """Where the visitor is."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    number: int = 0
    """In the order in which they came."""
    state: str = "waiting"
    """``waiting``, ``running``, ``done``, ``failed``, ``cancelled``."""
    done: int = 0
    total: int = 0
    """Of frames or steps; 0 while unknown."""
    picture: NDArray[np.uint8] | None = None
    """The newest thing to look at, [H, W, 3] RGB."""
    before: NDArray[np.uint8] | None = None
    """What a finished picture is compared with."""
    result: Path | None = None
    answer: Any = None
    """What the work found, if it is no file."""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    began_seconds: float = 0.0
    first_seconds: float = 0.0
    """When the first frame was done: what lies before it is loading."""
    ended_seconds: float = 0.0
    spare_seconds: Callable[[Job], float] = lambda job: math.inf
    """How much longer it may run, as others wait."""
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)
    changed: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def check(self) -> None:
        """Raises Cancelled when it was, StreamdreamError when it has had its time. The work calls it often."""
        if self.stop.is_set():
            raise Cancelled("cancelled")
        if self.spare_seconds(self) < 0:
            raise StreamdreamError("others wait, and this has had its time; dream a shorter part, or a smaller size")

    def progress(self, done: int, total: int = 0) -> None:
        """So many frames or steps are done. Raises Cancelled."""
        self.check()
        if not self.done and done:
            self.first_seconds = self.clock()
        self.done, self.total = done, total or self.total
        self.changed.set()

    def show(self, picture: NDArray[np.uint8]) -> None:
        self.picture = picture
        self.changed.set()

    @property
    def share(self) -> float:
        """0..1 of it is done, as far as is known."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def left_seconds(self) -> float | None:
        """At the speed so far; None while that is not known."""
        if self.state != "running" or self.done < 2 or not self.total:
            return None
        speed = (self.done - 1) / max(1e-6, self.clock() - self.first_seconds)
        return max(0, self.total - self.done) / speed


class JobQueue:
    """A line of jobs and the one thread that does them; from any thread.

    Round-robin over addresses, and over the visitors of each: nobody waits behind two of another's. A job that has run
    for ``max_seconds`` ends when another visitor waits, and after ``max_shared_seconds`` when another address does.
    """

    def __init__(self, name: str, folder: Path, most: int = 16, most_from_visitor: int = 2,
                 max_seconds: float = math.inf, max_shared_seconds: float = math.inf, keep_seconds: float = 1800.0,
                 max_per_address: int = MAX_PER_ADDRESS, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.folder = name, folder
        self._most, self._most_from_visitor, self._max_per_address = most, most_from_visitor, max_per_address
        self._max_seconds, self._max_shared_seconds, self._keep_seconds = max_seconds, max_shared_seconds, keep_seconds
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._last_served: dict[tuple[str, str], int] = {}
        """By kind ("visitor" or "address") and name: the number of the job that was served last."""
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._runner = threading.Thread(target=self._run, name=f"streamdream-{name}", daemon=True)
        self._runner.start()

    def submit(self, visitor: str, title: str, work: Work, address: str = "") -> Job:
        """Into the line. An unknown ``address`` counts as one of the visitor's own. Raises UsageError when the line is
        full, or the visitor's or the address's part of it.
        """
        address = address or f"visitor {visitor}"
        self.sweep()
        with self._changed:
            open_jobs = [job for job in self._jobs.values() if not job.finished]
            mine = sum(job.visitor == visitor for job in open_jobs)
            if self._closed:
                raise UsageError("this server is going down")
            if mine >= self._most_from_visitor:
                raise UsageError("your last one is not done yet; cancel it, or wait" if self._most_from_visitor == 1
                                 else f"you have {mine} waiting or running; cancel one, or wait")
            if sum(job.address == address for job in open_jobs) >= self._max_per_address:
                raise UsageError(f"{self._max_per_address} from your address wait or run already; try again later")
            if len(open_jobs) >= self._most:
                raise UsageError("the line is full; try again in a few minutes")
            job = Job(title, visitor, work, self.folder, address, number=next(self._numbers), clock=self._clock)
            job.folder, job.spare_seconds = self.folder / job.token, self.spare_seconds
            self._jobs[job.token] = job
            self._changed.notify_all()
        return job

    def get(self, token: str) -> Job | None:
        with self._changed:
            return self._jobs.get(token)

    def position(self, job: Job) -> int:
        """How many come before it, the running one included; 0 when it runs."""
        with self._changed:
            if job.state != "waiting":
                return 0
            running = sum(other.state == "running" for other in self._jobs.values())
            return running + self._queue().index(job)

    @property
    def is_busy(self) -> bool:
        """Is there anything to do?"""
        return any(not job.finished for job in self._all())

    def ahead_seconds(self) -> float | None:
        """What the running job still takes, as far as is known."""
        with self._changed:
            running = next((job for job in self._jobs.values() if job.state == "running"), None)
        return running.left_seconds if running else None

    def spare_seconds(self, job: Job) -> float:
        """How much longer a running job may take; below 0 it has to end. Infinite while nobody else waits."""
        others = [other for other in self._all() if other.state == "waiting" and other.visitor != job.visitor]
        if job.state != "running" or not others:
            return math.inf
        shared = any(other.address != job.address for other in others)
        most = min(self._max_seconds, self._max_shared_seconds) if shared else self._max_seconds
        return most - (self._clock() - job.began_seconds)

    def visitors(self) -> set[str]:
        """Those who have a job here, or what one made."""
        return {job.visitor for job in self._all()}

    def cancel(self, job: Job) -> None:
        """Ends it soon, and removes what it made."""
        with self._changed:
            job.stop.set()
            if job.state == "waiting":
                self._end(job, "cancelled")
            self._changed.notify_all()

    def discard(self, job: Job) -> None:
        """As ``cancel``, and forgets it, its result, too."""
        self.cancel(job)
        with self._changed:
            if job.finished:
                self._jobs.pop(job.token, None)
                self._remove(job)

    def forget(self, visitor: str) -> None:
        """A session has ended: its jobs and results go."""
        for job in self._all():
            if job.visitor == visitor:
                self.discard(job)
        with self._changed:
            self._last_served.pop(("visitor", visitor), None)

    def sweep(self) -> None:
        """Results that nobody fetched for long go."""
        for job in self._all():
            if job.finished and self._clock() - job.ended_seconds > self._keep_seconds:
                self.discard(job)
        with self._changed:
            for client_id in sorted(self._last_served, key=self._last_served.__getitem__)[:-MAX_REMEMBERED]:
                del self._last_served[client_id]

    def close(self) -> None:
        """Cancels everything, waits for the runner, removes the folder."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self._all():
            self.discard(job)
        self._runner.join(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Job]:
        with self._changed:
            return list(self._jobs.values())

    def _queue(self) -> list[Job]:
        """Who waits, in the order in which they will be served."""
        waiting = sorted((job for job in self._jobs.values() if job.state == "waiting"), key=lambda job: job.number)
        for kind in ("visitor", "address"):
            waiting = self._take_turns(waiting, kind)
        return waiting

    def _take_turns(self, jobs: list[Job], kind: str) -> list[Job]:
        """Each visitor's, or address's, next before anybody's next but one; first whose last one lies longest back."""
        turns: Counter[str] = Counter()
        order = []
        for place, job in enumerate(jobs):
            client_id = getattr(job, kind)
            order.append(
                (turns[client_id], 0 if turns[client_id] else self._last_served.get((kind, client_id), 0), place)
            )
            turns[client_id] += 1
        return [jobs[place] for _, _, place in sorted(order)]

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._queue())
            if self._closed:
                return None
            job = self._queue()[0]
            job.state, job.began_seconds = "running", self._clock()
            self._last_served["visitor", job.visitor] = self._last_served["address", job.address] = job.number
            return job

    def _do(self, job: Job) -> None:
        state = "done"
        try:
            job.check()
            job.folder.mkdir(mode=0o700)
            with torch_threads.use_threads(torch_threads.default_threads()):  # whatever a live dream takes meanwhile
                job.work(job)
            job.check()
        except Cancelled:
            state = "cancelled"
        except StreamdreamError as error:
            state, job.error = "failed", str(error)
        except Exception:
            log.exception("%s failed unexpectedly", self.name)
            state, job.error = "failed", "something went wrong here; the server's log says what"
        with self._changed:
            self._end(job, state)
            gone = job.stop.is_set()
        if gone:
            self.discard(job)

    def _end(self, job: Job, state: str) -> None:
        if state != "done":  # before anybody is told: then nothing of it is left
            self._remove(job)
        job.state, job.ended_seconds, job.work = state, self._clock(), _nothing
        job.changed.set()

    def _remove(self, job: Job) -> None:
        job.answer = job.picture = job.before = job.result = None
        with contextlib.suppress(OSError):
            shutil.rmtree(job.folder)


class StepwiseSlot:
    """Turns on the device that end with every step, so that nobody live waits for a whole picture.

    ``with step_by_step():`` holds a turn; ``pass_on``, called within it after each step, ends it, calls ``between``,
    and waits for the next.
    """

    def __init__(self, turn: Turn, between: Callable[[], None] = lambda: None) -> None:
        self._turn, self._between = turn, between
        self._held: AbstractContextManager[object] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Any:
        self._begin()
        try:
            yield
        finally:
            self._end()

    def yield_slot(self) -> None:
        if self._held is not None:
            self._end()
            self._between()
            self._begin()

    def _begin(self) -> None:
        held = self._turn()
        held.__enter__()
        self._held = held

    def _end(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)


def _nothing(job: Job) -> None:
    """In the place of work that is done, so that what it held can go."""
