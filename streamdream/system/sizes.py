"""Describe sizes."""
from __future__ import annotations


def describe_bytes(size: float) -> str:
    """Return a size as ``740 kB``, ``12 MB`` or ``1.5 GB``: two digits, or those before the point."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 9.95 * factor else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} bytes"
