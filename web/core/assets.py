"""Our scripts and styles, under addresses that change with them, so that browsers may keep them for good."""
from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
ROUTE = "streamdream"
"""Path of the folder, relative to the page."""


@cache
def version() -> str:
    """Return a hash of the files in the folder itself, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in ASSETS.iterdir() if path.is_file()):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)} ".encode() + data)
    return digest.hexdigest()[:12]


def url(name: str) -> str:
    """Return the address of a file, relative to the page. Scripts import each other from the same folder."""
    return f"{ROUTE}/{version()}/{name}"


@cache
def text(name: str) -> str:
    """Return a file for use in the page, with the addresses of other files."""
    return (ASSETS / name).read_text(encoding="utf-8").replace(f'"{ROUTE}/', f'"{ROUTE}/{version()}/')
