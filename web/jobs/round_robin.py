"""The order of waiting jobs: round-robin over addresses, and over the visitors of each."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .job import Job

MAX_REMEMBERED = 1000
"""Visitors and addresses whose last job is remembered."""


class RoundRobin:
    """Remembers who was served last."""

    def __init__(self) -> None:
        self._last_served: dict[tuple[str, str], int] = {}
        """By kind ("visitor" or "address") and name: the number of the job that was served last."""

    def served(self, job: Job) -> None:
        """Record that a job begins."""
        self._last_served["visitor", job.visitor] = self._last_served["address", job.address] = job.number

    def order(self, waiting: Iterable[Job]) -> list[Job]:
        """Return the jobs in the order in which they will run."""
        jobs = sorted(waiting, key=lambda job: (job.submitted_at, job.number))
        for kind in ("visitor", "address"):
            jobs = self._order_by(jobs, kind)
        return jobs

    def _order_by(self, jobs: list[Job], kind: str) -> list[Job]:
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

    def prune(self) -> None:
        """Forget those who were not served for longest, if they are many."""
        for key in sorted(self._last_served, key=self._last_served.__getitem__)[:-MAX_REMEMBERED]:
            del self._last_served[key]
