"""What machine this is."""
from __future__ import annotations

import platform
from pathlib import Path


def processor_name() -> str:
    """The processor's name as Linux or macOS call it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
