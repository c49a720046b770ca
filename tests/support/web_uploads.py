"""What tests of uploads share: small limits, a way to send bytes, a clip."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamdream_web.jobs.file_inspection import InspectionLimits
from streamdream_web.jobs.uploads import Upload, Uploads

from support.clips import Clip, make

LIMITS = InspectionLimits(megabytes=8, seconds=60, pixels=1920 * 1080)


@contextmanager
def opened(folder: Path) -> Iterator[Uploads]:
    """Uploads in ``folder / "uploads"``, of which nothing is left at the end."""
    uploads = Uploads(folder / "uploads", LIMITS)
    yield uploads
    uploads.close()
    assert not (folder / "uploads").exists()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        for start in range(0, len(piece), 65536):
            yield piece[start:start + 65536]


def send(uploads: Uploads, data: bytes, name: str, stated: int = 0, address: str = "", visitor: str = "") -> Upload:
    return asyncio.run(uploads.receive(name, pieces(data), stated, address, visitor))


def files(uploads: Uploads) -> list[Path]:
    return list(uploads.folder.rglob("*"))


def clip(tmp_path: Path, suffix: str = ".mp4", **what: Any) -> bytes:
    return Path(make(tmp_path / f"made{suffix}", Clip(**what))).read_bytes()
