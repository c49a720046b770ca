"""Which results go when all together are too large."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from . import job_store
from .job import Job


def surplus(jobs: Iterable[Job], max_bytes: float) -> list[Job]:
    """Return the finished jobs to forget until the others have at most ``max_bytes``: in turn the oldest one of the
    address that holds most, so that nobody can push out the results of others.
    """
    kept = [job for job in jobs if job.finished and job.request is not None]
    sizes = {job.token: job_store.size_bytes(job) for job in kept}
    held = Counter[str]()
    for job in kept:
        held[job.address] += sizes[job.token]
    forgotten = []
    while held.total() > max_bytes and kept:
        largest = max(held, key=lambda address: held[address])
        oldest = min((job for job in kept if job.address == largest), key=lambda job: job.ended_seconds)
        kept.remove(oldest)
        forgotten.append(oldest)
        held[largest] -= sizes[oldest.token]
    return forgotten
