"""Facts about this machine."""
from __future__ import annotations

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """The name of the processor, as Linux or macOS report it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """The number of processor cores, with hyper-threads, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
