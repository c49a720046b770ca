"""Tune the process: OpenMP, malloc, garbage collection, thread priorities; the first two before torch is imported."""
from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
TRIM_THRESHOLD_BYTES = 1 << 30
MAX_REUSED_BLOCK_BYTES = 1 << 26  # larger blocks occur with huge pictures only, and are returned to the system
NICENESS = 5
"""Added to the niceness of a thread."""
THREADS_DIR = Path("/proc/self/task")
"""The threads of this process, on Linux."""
_frozen = False


def tune_process() -> None:
    """Call once, before torch is imported, as the command line does. Environment variables take precedence."""
    limit_openmp_spin()
    tune_malloc()


def limit_openmp_spin() -> None:
    """Let PyTorch's threads (GNU OpenMP) spin for about 40 us, not milliseconds, while they wait for each other.

    Beside other load (the encoder, a browser) long spinning makes a step up to 100 times slower; without spinning,
    waking costs half of the speed. Measured in docs/notebook/2026-11-23-openmp-spin.md.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def tune_malloc() -> None:
    """Let glibc keep large blocks instead of returning them to the system after each use, which costs 20,000 page
    faults a GoogLeNet step (20 % of the time). One arena, so that the blocks of worker threads are kept, too.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAX_REUSED_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        mallopt(M_ARENA_MAX, 1)


def lower_thread_priority() -> None:
    """Raise the niceness of this thread, and of threads that it starts later: the scheduler gives them a third of the
    weight. Linux only; elsewhere a thread has no niceness. With less weight, dreams would starve beside other programs
    of the same terminal.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):  # a sandbox that forbids it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def trim_heap() -> None:
    """Return free memory, which glibc keeps after ``tune_malloc``, to the system: 7 ms for 100 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:  # musl has none
        trim(0)


def freeze_gc() -> None:
    """Exclude all current objects from garbage collection. Call it when the program has loaded, before a show; only the
    first call has an effect.

    PyTorch and other modules are 190,000 objects; a full collection of them stops all threads for 80 to 280 ms. Frozen
    objects are never collected, so no object of a session may exist yet.
    """
    global _frozen
    if not _frozen:
        _frozen = True
        gc.collect()
        gc.freeze()


@contextmanager
def preserve_scheduling() -> Iterator[None]:
    """Restore the scheduling of this thread, and of threads started within the block, at its end. SVT-AV1, run as root,
    makes its threads and the calling thread real-time ones of the highest priority; threads started later inherit it,
    and one that spins then blocks a processor for ever.
    """
    if not hasattr(os, "sched_setscheduler") or not THREADS_DIR.exists():
        yield
        return
    policy, priority, before = os.sched_getscheduler(0), os.sched_getparam(0), set(THREADS_DIR.iterdir())
    try:
        yield
    finally:
        for task in [THREADS_DIR / str(threading.get_native_id()), *set(THREADS_DIR.iterdir()) - before]:
            with suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(task.name)) != policy:
                    os.sched_setscheduler(int(task.name), policy, priority)
