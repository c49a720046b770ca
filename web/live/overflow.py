"""Live dreams on several replicas: whoever would wait here goes to a replica with room.

    handshake ──▶ full here, room elsewhere ──▶ 503 ──▶ the proxy asks the next replica ──▶ its room, or its queue
    queue ──▶ room elsewhere ──▶ closed as by a restart ──▶ the page connects again ──▶ handshake
"""
from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..core.dream_health import READY
from ..core.replica_loads import ReplicaLoad, ReplicaLoads
from .waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ..core.state import AppState

PASS_AGAIN_SECONDS = 3.0
"""Who comes back sooner is taken: no other replica has taken them."""
MOVE_AGAIN_SECONDS = 60.0
"""How often a visitor may be moved out of the queue: it costs them their place where the room is gone meanwhile."""
log = logging.getLogger(__name__)


class Overflow:
    """Passes visitors on to other replicas; nobody where the server is the only one. On the event loop."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._app_state, self._waiting_room, self._clock = app_state, waiting_room, clock
        self._loads = ReplicaLoads(app_state.replica, clock) if app_state.replica else None
        self._passed: dict[str, float] = {}
        """When a visitor was passed on, by name or address."""
        self._thread = ThreadPoolExecutor(1, "streamdream-loads")
        self._exchange: asyncio.Future[None] | None = None
        self._failing = False

    def tick(self) -> None:
        """To be called every second: tell the others how much room is here, and use theirs. A shared folder that does
        not answer holds up nothing.
        """
        if self._loads is None or (self._exchange is not None and not self._exchange.done()):
            return
        self._exchange = asyncio.get_running_loop().run_in_executor(self._thread, self._loads.exchange, self._load())
        self._exchange.add_done_callback(self._on_exchanged)
        self._move_queue(self._loads)

    def _load(self) -> ReplicaLoad:
        room = self._waiting_room
        free = self._app_state.web.max_sessions - len(room.sessions) - len(room.queue)
        return ReplicaLoad(max(0, free) if self._app_state.readiness == READY else 0, frozenset(room.visitors()))

    def _on_exchanged(self, exchange: asyncio.Future[None]) -> None:
        error = None if exchange.cancelled() else exchange.exception()
        if error is not None and not self._failing:
            log.warning("other replicas do not know how much room is here: %s", error)
        self._failing = error is not None

    def passes_on(self, visitor: str, address: str) -> bool:
        """Return whether a visitor who connects would wait here, and another replica has room, or their dream, after a
        lost connection. ``visitor`` is as ``visitor_cookie.visitor_of`` returns it.

        Where there is room here they are taken, also if their dream runs elsewhere: a replica that has just been killed
        counts for ``FRESH_SECONDS``.
        """
        if self._loads is None or not self._waiting_room.is_full or self._waiting_room.has_session_of(visitor):
            return False
        others, who = self._loads.fresh(), visitor or address
        if self._since_passed(who) < PASS_AGAIN_SECONDS:
            return False
        if not (any(visitor in load.visitors for load in others) or self._free(others) > 0):
            return False
        now = self._clock()
        self._passed = {name: at for name, at in self._passed.items() if now - at < MOVE_AGAIN_SECONDS} | {who: now}
        self._app_state.counts["passed on"] += 1
        return True

    def _since_passed(self, who: str) -> float:
        return self._clock() - self._passed[who] if who in self._passed else float("inf")

    def _free(self, others: list[ReplicaLoad]) -> int:
        """Return how many can be passed on: those who just were may not be counted there yet."""
        return sum(load.free for load in others) - sum(self._since_passed(who) < PASS_AGAIN_SECONDS
                                                       for who in self._passed)

    def _move_queue(self, loads: ReplicaLoads) -> None:
        free = self._free(loads.fresh()) if self._waiting_room.is_full else 0
        movable = [connection for connection in self._waiting_room.queue
                   if not self._waiting_room.has_session_of(connection.visitor)
                   and self._since_passed(connection.visitor or connection.address) >= MOVE_AGAIN_SECONDS]
        self._waiting_room.send_away(movable[:max(0, free)])

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
