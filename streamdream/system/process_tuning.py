"""What concerns the process as a whole, and must be set before torch is loaded, lest steps be slow."""
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
MAX_REUSED_BLOCK_BYTES = 1 << 26  # what is larger occurs in huge pictures only, and is better given back
NICENESS = 5
"""Above that of the other threads."""
THREADS_DIR = Path("/proc/self/task")
"""The threads of this process, on Linux."""
_frozen = False


def tune_process() -> None:
    """Call it once, before torch is imported; the command line does. What the environment already says stays."""
    limit_openmp_spin()
    tune_malloc()


def limit_openmp_spin() -> None:
    """PyTorch's threads (GNU OpenMP) spin for milliseconds while they wait for each other. Once anything else wants the
    cores (our own encoder, a browser) each spins through the other's turn, and a step takes up to 100 times as long;
    asleep at once they lose half their speed to waking. Spinning for about 40 us keeps all of it; figures:
    docs/notebook/2026-11-23-openmp-spin.md.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def tune_malloc() -> None:
    """glibc gives large blocks back to the system after each use and takes them anew, 20,000 page faults a GoogLeNet
    step; kept, a step is a fifth faster. One arena, so that a worker thread's blocks are kept, too.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAX_REUSED_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        mallopt(M_ARENA_MAX, 1)


def lower_thread_priority() -> None:
    """This thread, and those that it begins from now on, are less urgent than the other threads here: the scheduler
    gives them a third of the weight, and wakes the others before them. Linux only; elsewhere a thread has no niceness
    of its own. Less weight still would let a dream starve beside whatever else runs in the same terminal.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):  # a sandbox that forbids it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def trim_heap() -> None:
    """Return the memory that is free to the system, which glibc keeps after ``keep_memory``: 7 ms for 100 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:  # musl has none
        trim(0)


def freeze_gc() -> None:
    """Exclude all that is loaded now from garbage collection. Call it when the program has loaded, before a show;
    only the first call does anything.

    PyTorch and the rest are 190,000 objects, and a collection among all of them, once in a show of some minutes, holds
    every thread for 80 to 280 ms. What is frozen is never collected: nothing that belongs to a session may exist yet.
    """
    global _frozen
    if not _frozen:
        _frozen = True
        gc.collect()
        gc.freeze()


@contextmanager
def preserve_scheduling() -> Iterator[None]:
    """What is loaded or opened within it leaves this thread's scheduling as it was, and so that of the threads that it
    begins. SVT-AV1, run as root, makes its threads and the caller's real-time ones of the highest priority: everything
    that is begun afterwards is one, too, and what waits by spinning then holds a processor for ever.
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
