"""The queue of password checks: one runs at a time; addresses with the fewest wrong passwords go first."""
from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from ..core import limits

FORGET_SECONDS = 600.0
"""Wrong passwords of an address are forgotten after this time without another."""
MAX_REMEMBERED = 10_000
"""Addresses whose wrong passwords are counted."""


class TooManyLogins(Exception):
    """Too many password checks are waiting."""


@dataclass(order=True)
class _Waiter:
    failures: int
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class LoginQueue:
    """Runs password checks in a thread; on one event loop."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()
        self._pending: Counter[str] = Counter()
        self._order: dict[str, asyncio.Lock] = {}
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def check(self, address: str, matches: Callable[[], bool]) -> bool:
        """Return what ``matches`` returns. Checks of one address run one after the other, with a pause after each wrong
        one.

        Raises TooManyLogins.
        """
        async with self._in_order(address):
            await self._take_turn(address)
            try:
                is_right = await asyncio.to_thread(matches)
            finally:
                self._end_turn()
            if not is_right:
                self._count_failure(address)
                await asyncio.sleep(limits.LOGIN_PAUSE_SECONDS)
        return is_right

    @contextlib.asynccontextmanager
    async def _in_order(self, address: str) -> AsyncIterator[None]:
        if self._pending[address] >= limits.MAX_LOGINS_PER_ADDRESS:
            raise TooManyLogins
        self._pending[address] += 1
        try:
            async with self._order.setdefault(address, asyncio.Lock()):
                yield
        finally:
            self._pending[address] -= 1
            if not self._pending[address]:
                del self._pending[address], self._order[address]

    async def _take_turn(self, address: str) -> None:
        if not self._busy:
            self._busy = True
            return
        waiter = _Waiter(self._failures_of(address), next(self._numbers), asyncio.get_running_loop().create_future())
        if len(self._waiting) >= limits.MAX_LOGINS_WAITING:
            last = max(self._waiting)
            if last < waiter:
                raise TooManyLogins
            self._waiting.remove(last)
            heapq.heapify(self._waiting)
            last.turn.set_exception(TooManyLogins())
        heapq.heappush(self._waiting, waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._end_turn()  # it had its turn already
            raise

    def _end_turn(self) -> None:
        while self._waiting:
            waiter = heapq.heappop(self._waiting)
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                return
        self._busy = False

    def _failures_of(self, address: str) -> int:
        count, at_seconds = self._failures.get(address, (0, 0.0))
        return count if time.monotonic() - at_seconds < FORGET_SECONDS else 0

    def _count_failure(self, address: str) -> None:
        self._failures[address] = self._failures_of(address) + 1, time.monotonic()
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_REMEMBERED:
            self._failures.popitem(last=False)
