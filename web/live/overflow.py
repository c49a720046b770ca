"""Live dreams on several replicas: whoever would wait here goes to a replica with room.

    handshake ──▶ full here, room elsewhere ──▶ 503 ──▶ the proxy asks the next replica ──▶ its room, or its queue
    queue ──▶ room elsewhere ──▶ closed as by a restart ──▶ the page connects again ──▶ handshake
"""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.dream_health import READY
from ..core.replica_loads import ReplicaLoad, ReplicaLoads
from .waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ..core.state import AppState

CLAIM_SECONDS = 3.0
"""For how long a place elsewhere counts as taken by whoever was sent there; who comes back sooner finds none, and is
taken here.
"""
MOVE_AGAIN_SECONDS = 60.0
"""How often a visitor may be moved out of the queue: it costs them their place where the room is gone meanwhile."""
log = logging.getLogger(__name__)


class Overflow:
    """Sends visitors to other replicas; none where there are no others, or no live dreams. On the event loop."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom, has_live: bool = True,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._app_state, self._waiting_room, self._clock = app_state, waiting_room, clock
        self._loads = ReplicaLoads(app_state.replica, clock) if app_state.replica and has_live else None
        self._passed: dict[str, float] = {}
        """When visitors, by name or address, were answered with 503."""
        self._moved: dict[str, float] = {}
        """When they were moved out of the queue."""
        self._exchange: threading.Thread | None = None
        self._failing = False

    def tick(self) -> None:
        """To be called every second: tell the others how much room is here, and use theirs. A shared folder that does
        not answer holds up nothing, not even the end of the process.
        """
        if self._loads is None or (self._exchange is not None and self._exchange.is_alive()):
            return
        self._exchange = threading.Thread(target=self._tell, args=(self._loads, self._load()), daemon=True)
        self._exchange.start()
        self._move_queue(self._loads.fresh())

    def _load(self) -> ReplicaLoad:
        """Whoever is in the queue takes none of the free places: they wait for one of their address."""
        free = self._app_state.web.max_sessions - len(self._waiting_room.sessions)
        return ReplicaLoad(max(0, free) if self._app_state.readiness == READY else 0,
                           frozenset(self._waiting_room.visitors()))

    def _tell(self, loads: ReplicaLoads, own: ReplicaLoad) -> None:
        try:
            loads.exchange(own)
        except OSError as error:
            if not self._failing:
                log.warning("other replicas do not know how much room is here: %s", error)
            self._failing = True
        else:
            self._failing = False

    def passes_on(self, visitor: str, address: str) -> bool:
        """Return whether a visitor who connects would wait here, and another replica has room, or their dream, after a
        lost connection. ``visitor`` is as ``visitor_cookie.visitor_of`` returns it.

        Where there is room here they are taken, also if their dream runs elsewhere: a replica that has just been killed
        counts for ``FRESH_SECONDS``.
        """
        room = self._waiting_room
        if self._loads is None or room.has_room_for(address) or room.has_session_of(visitor):
            return False
        others, who, now = self._loads.fresh(), visitor or address, self._clock()
        if not any(visitor in load.visitors for load in others) and (
                self._is_claimed(self._passed, who) or self._free(others, who) < 1):
            return False
        self._passed = self._recent(self._passed) | {who: now}
        self._app_state.counts["passed on"] += 1
        return True

    def _is_claimed(self, sent: Mapping[str, float], who: str) -> bool:
        return who in sent and self._clock() - sent[who] < CLAIM_SECONDS

    def _recent(self, sent: Mapping[str, float]) -> dict[str, float]:
        return {who: at for who, at in sent.items() if self._clock() - at < MOVE_AGAIN_SECONDS}

    def _free(self, others: Sequence[ReplicaLoad], who: str = "") -> int:
        """Return how many places are left elsewhere for ``who``, after those that others were sent to, who are not seen
        there yet.
        """
        there = frozenset[str]().union(*(load.visitors for load in others))
        claims = {one for sent in (self._passed, self._moved) for one in sent if self._is_claimed(sent, one)}
        return sum(load.free for load in others) - len(claims - there - {who})

    def _move_queue(self, others: Sequence[ReplicaLoad]) -> None:
        self._moved = self._recent(self._moved)
        movable = {connection.visitor or connection.address: connection for connection in self._waiting_room.queue
                   if not self._waiting_room.has_session_of(connection.visitor)}
        chosen = [who for who in movable if who not in self._moved][:max(0, self._free(others))]
        self._moved |= dict.fromkeys(chosen, self._clock())
        self._waiting_room.send_away(movable[who] for who in chosen)
