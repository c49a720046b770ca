"""Which results go when all together are too large."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..core import limits
from . import job_store
from .job import Job


def surplus(jobs: Iterable[Job], max_bytes: float, max_jobs: int = limits.MAX_KEPT) -> list[Job]:
    """Return the finished jobs to forget until the others are at most ``max_jobs``, of at most ``max_bytes``: in turn
    the oldest one of the address that holds most, so that nobody can push out the results of others.
    """
    kept = [job for job in jobs if job.finished and job.request is not None]
    for job in kept:
        if job.size_bytes is None:
            job.size_bytes = job_store.size_bytes(job)
    forgotten = _forget(kept, max_bytes, {job.token: job.size_bytes or 0 for job in kept})
    return forgotten + _forget(kept, max_jobs, {job.token: 1 for job in kept})


def _forget(kept: list[Job], limit: float, sizes: Mapping[str, int]) -> list[Job]:
    """Take jobs out of ``kept`` until the sum of their sizes is at most ``limit``, and return them."""
    held = Counter[str]()
    for job in kept:
        held[job.address] += sizes[job.token]
    forgotten = []
    while held.total() > limit and kept:
        largest = max(held, key=lambda address: held[address])
        oldest = min((job for job in kept if job.address == largest), key=lambda job: job.ended_seconds)
        kept.remove(oldest)
        forgotten.append(oldest)
        held[largest] -= sizes[oldest.token]
    return forgotten
