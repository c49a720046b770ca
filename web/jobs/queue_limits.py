"""How many jobs may wait and run, of a visitor, of an address, of all; and how long one may run while others wait."""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from streamdream.errors import UsageError

from .job import Job


@dataclass(frozen=True)
class QueueLimits:
    """``jobs`` of one server; those of a visitor and of an address count on all that share a folder."""

    jobs: int
    per_visitor: int
    per_address: int
    seconds: float
    """While another visitor waits."""
    shared_seconds: float
    """While another address waits."""

    def check(self, visitor: str, address: str, unfinished: Iterable[Job], own: int) -> None:
        """Raises UsageError when there is no room for one more beside ``unfinished``, of which ``own`` are here."""
        of_address = [job for job in unfinished if job.address == address]
        mine = sum(job.visitor == visitor for job in unfinished)
        if mine >= self.per_visitor:
            raise UsageError("your last job is not finished; cancel it, or wait" if self.per_visitor == 1
                             else f"you have {mine} waiting or running; cancel one, or wait")
        if len(of_address) >= self.per_address:
            raise UsageError(f"{self.per_address} from your address wait or run already; try again later")
        if own >= self.jobs:
            raise UsageError("the queue is full; try again in a few minutes")

    def spare_seconds(self, job: Job, waiting: Iterable[Job], ran_seconds: float) -> float:
        """Return how much longer a job may run, infinite while no other visitor waits; below 0 it has to end."""
        others = [other for other in waiting if other.visitor != job.visitor]
        if not others:
            return math.inf
        is_shared = any(other.address != job.address for other in others)
        return (min(self.seconds, self.shared_seconds) if is_shared else self.seconds) - ran_seconds
