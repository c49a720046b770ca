"""What is counted and logged of the jobs of one queue, and how long one will wait."""
from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from ..core import histogram
from .job import Job

MAX_DURATIONS = 8
"""Durations of ended jobs from which waiting times are estimated."""
MAX_LOGGED = 200
"""Characters of an error in the log."""
log = logging.getLogger(__name__)


class JobStatistics:
    """``counts`` gets the ended jobs by state, and by duration as in ``core/histogram.py``."""

    def __init__(self, queue: str, counts: Counter[str]) -> None:
        self._queue, self._counts = queue, counts
        self._durations: deque[float] = deque(maxlen=MAX_DURATIONS)

    def ended(self, job: Job, ran_seconds: float) -> None:
        """Count and log a job that ran for so long, or was cancelled before (0)."""
        self._counts[f"jobs {self._queue} {job.state}"] += 1
        if ran_seconds:
            self._counts[histogram.bucket(f"job {self._queue}", ran_seconds, histogram.JOB_BOUNDS)] += 1
            self._counts[f"job {self._queue} ms"] += round(1e3 * ran_seconds)
        if job.state == "done" and job.request is not None:
            self._durations.append(ran_seconds)
        error = {"error": job.error[:MAX_LOGGED]} if job.error else {}
        self.log(job, "a job has ended", state=job.state, seconds=round(ran_seconds, 3), steps=job.done, **error)

    def log(self, job: Job, words: str, **more: Any) -> None:
        """Log no secret, and no name that a visitor has chosen."""
        address = "" if job.address.startswith("visitor ") else job.address
        log.info("%s", words, extra={"facts": {"job": job.token[:4], "queue": self._queue, "address": address, **more}})

    def wait_seconds(self, ahead: int, running: Sequence[Job]) -> float | None:
        """Return the estimated wait of a job with ``ahead`` waiting ones before it; None while nothing is known."""
        usual = sum(self._durations) / len(self._durations) if self._durations else None
        left = [job.left_seconds or usual for job in running]
        known = [seconds for seconds in left if seconds is not None]
        if (running and not known) or (ahead and usual is None):
            return None
        return min(known, default=0.0) + ahead * (usual or 0.0) / max(1, len(running))
