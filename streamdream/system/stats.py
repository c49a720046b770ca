"""Stage timers: what each part of a frame costs, as percentiles over a bounded window."""
from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SAMPLES = 4096  # per stage: minutes of video, and bounded for endless runs


class Stats:
    """Collect durations by stage name; cheap enough for every frame."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {}
        self.started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self._samples.setdefault(name, deque(maxlen=MAX_SAMPLES)).append(seconds)

    def stages(self) -> dict[str, dict[str, float]]:
        """``{stage: {"p50_ms": .., "p95_ms": ..}}``, in the order in which stages first ran."""
        return {name: {"p50_ms": round(1e3 * percentile(samples, 0.5), 3),
                       "p95_ms": round(1e3 * percentile(samples, 0.95), 3)}
                for name, samples in self._samples.items()}

    @property
    def elapsed_seconds(self) -> float:
        return time.perf_counter() - self.started


def percentile(samples: deque[float] | list[float], fraction: float) -> float:
    """Nearest-rank percentile; ``fraction`` in 0..1. Zero when there are no samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0


def peak_rss_mb() -> float:
    """The peak resident memory of this process, in MB."""
    rss_mb = _status_mb("VmHWM:")  # on Linux, getrusage starts with the memory of the parent process
    if rss_mb:
        return rss_mb
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes on macOS, KiB on Linux


def rss_mb() -> float:
    """The resident memory of this process, in MB; 0 where it is not known (other than Linux)."""
    return _status_mb("VmRSS:")


def _status_mb(row: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(row)), 0.0)
