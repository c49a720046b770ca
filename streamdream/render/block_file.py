"""A file that is handed over in blocks: whoever reads it fetches the blocks that it reads, and no others."""
from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK_BYTES = 8 << 20
MAX_BLOCKS = 4
"""Blocks that a reader keeps: demuxers read the index, pictures and sound in turn."""


def count_blocks(size: int) -> int:
    """Of a file of so many bytes."""
    return -(-size // BLOCK_BYTES)


def read_block(path: str, number: int) -> bytes:
    """Raises OSError."""
    with Path(path).open("rb") as file:
        file.seek(number * BLOCK_BYTES)
        return file.read(BLOCK_BYTES)


class BlockFile(io.RawIOBase):
    """A seekable file for reading. ``fetch`` returns a block by its number; ``size`` is in bytes."""

    def __init__(self, fetch: Callable[[int], bytes], size: int) -> None:
        super().__init__()
        self._fetch, self._size, self._position = fetch, size, 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read within one block."""
        number, offset = divmod(self._position, BLOCK_BYTES)
        if self._position >= self._size:
            return 0
        data = self._block(number)[offset:offset + len(buffer)]
        buffer[:len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._blocks[number] = self._fetch(number)
            while len(self._blocks) > MAX_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]
