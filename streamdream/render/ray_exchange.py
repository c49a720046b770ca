"""What the tasks of a Ray cluster and the process that waits for them tell each other, through an actor between them.

    task    ──begin, frames──▶  Exchange  ◀──counts───────────────  driver
            ──block──────────▶            ◀──wanted, hand───────

So the driver, which may be no node of the cluster, hands over only the blocks of a file that are read, one at a time.
"""
from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import suppress
from typing import Any

MAX_BLOCKS = 8
"""Blocks that are kept for whoever reads them next: all tasks read the index of a file. Ray frees the others."""
WAIT_SECONDS = 10.0
Block = tuple[str, int]
"""A file of the driver's machine, and the number of the block in it."""


class Exchange:
    """An actor. Its methods are coroutines: while a task waits for a block, the others go on."""

    def __init__(self) -> None:
        self._frames: dict[int, int] = {}
        self._begins: Counter[int] = Counter()
        self._blocks: OrderedDict[Block, asyncio.Future[list[Any]]] = OrderedDict()
        self._wanted: list[Block] = []
        self._is_wanted = asyncio.Event()

    async def begin(self, number: int) -> None:
        """A task begins the chunk of that number."""
        self._begins[number] += 1
        self._frames[number] = 0

    async def set_frames(self, number: int, frames: int) -> None:
        """That chunk has so many frames now."""
        self._frames[number] = frames

    async def counts(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return frames and begins by the number of the chunk."""
        return self._frames, dict(self._begins)

    async def block(self, block: Block) -> list[Any]:
        """Return the reference to the block, in a list, when the driver has handed it over."""
        found = self._future(block)
        if not found.done() and block not in self._wanted:
            self._wanted.append(block)
            self._is_wanted.set()
        return await asyncio.shield(found)  # a task that is lost cancels its call, and others may wait, too

    async def wanted(self) -> list[Block]:
        """Return the blocks that tasks wait for, as soon as there are some; none after a while."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_wanted.wait(), WAIT_SECONDS)
        self._is_wanted.clear()
        wanted, self._wanted = self._wanted, []
        return wanted

    async def stop(self) -> None:
        """The driver waits for no block any more."""
        self._is_wanted.set()

    async def hand(self, block: Block, references: list[Any]) -> None:
        """The driver hands over a block: a list with its reference."""
        found = self._future(block)
        if not found.done():
            found.set_result(references)
        old = [key for key, future in self._blocks.items() if future.done()][:-MAX_BLOCKS]
        for key in old:
            del self._blocks[key]

    def _future(self, block: Block) -> asyncio.Future[list[Any]]:
        """Of that block, which is now the one that was used last."""
        if block not in self._blocks:
            self._blocks[block] = asyncio.get_running_loop().create_future()
        self._blocks.move_to_end(block)
        return self._blocks[block]
