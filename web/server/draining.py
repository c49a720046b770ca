"""The end of a server that others take over from: no new visitors, and time for those that it has.

    SIGTERM ──▶ begin ──▶ /readyz, new pages and new live sockets: 503; the queue goes elsewhere ──▶ is_over ──▶ stop
"""
from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from ..auth import visitor_cookie
from ..core.response import App, Receive, Scope, Send
from ..live.overflow import Overflow

if TYPE_CHECKING:
    from ..core.state import AppState
    from ..jobs.service import JobService
    from ..live.waiting_room import WaitingRoom

UPLOADS, RESULTS = "/uploads", "/results/"
"""Prefixes of routes whose requests are waited for."""
NEXT_PIECE_SECONDS = 2.0
"""An upload comes in several requests: how long the next one is waited for."""
RETRY_SECONDS = 1
"""In Retry-After: a proxy asks another server at once, a browser without one comes back to the next server."""
log = logging.getLogger(__name__)


class Draining:
    """Knows when the server may stop. On the event loop."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom, jobs_service: JobService,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._app_state, self._waiting_room, self._jobs_service = app_state, waiting_room, jobs_service
        self._clock = clock
        self._began_seconds = 0.0
        self._transfers = 0
        """Open requests that bring or fetch files."""
        self._next_piece_until_seconds = 0.0

    def begin(self) -> None:
        """Take no new visitors from now on, and no further jobs."""
        self._began_seconds = self._clock()
        self._app_state.draining = True
        self._jobs_service.drain()
        log.info("draining: no new visitors; what runs goes on for at most %g s", self._app_state.web.drain_seconds,
                 extra={"facts": self._left()})
        self._waiting_room.send_away(self._waiting_room.queue)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for, or the time is up. Says so once in the log when it is asked until then.
        """
        took_seconds, left = self._clock() - self._began_seconds, self._left()
        if any(left.values()) and took_seconds < self._app_state.web.drain_seconds:
            return False
        log.info("drained: %s", "the rest is broken off" if any(left.values()) else "nothing is left",
                 extra={"facts": {**left, "seconds": round(took_seconds, 1)}})
        return True

    def _left(self) -> dict[str, int]:
        """What is waited for: a session without a connection, too, as its visitor may come back within seconds."""
        room, service = self._waiting_room, self._jobs_service
        is_between_pieces = self._clock() < self._next_piece_until_seconds
        return {"sessions": len(room.sessions), "waiting": len(room.queue),
                "jobs": int(service.videos.is_running) + int(service.stills.is_running),
                "transfers": self._transfers or int(is_between_pieces)}

    async def transfer(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that is waited for."""
        self._transfers += 1
        try:
            await app(scope, receive, send)
        finally:
            self._transfers -= 1
            if scope["path"].startswith(UPLOADS) and scope["method"] in ("POST", "PATCH"):
                self._next_piece_until_seconds = self._clock() + NEXT_PIECE_SECONDS

    def refuses(self, scope: Scope) -> bool:
        """Return whether the server drains, and another one can serve the request as well: for a page, or for a dream
        that does not run here.
        """
        if not self._app_state.draining:
            return False
        if scope["type"] == "websocket":
            return not self._waiting_room.has_session_of(visitor_cookie.visitor_of(HTTPConnection(scope).cookies))
        return bool(scope["type"] == "http" and scope["path"] == "/")


class ReplicaGate:
    """ASGI middleware before ``app``, for requests that have passed the login: answers with 503 what another replica
    serves better.
    """

    def __init__(self, app: App, draining: Draining, overflow: Overflow) -> None:
        self._app, self._draining, self._overflow = app, draining, overflow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if reason := self._refusal(scope):
            answer = PlainTextResponse(f"{reason}; try again in a moment", 503,
                                       {"Retry-After": str(RETRY_SECONDS), "Cache-Control": "no-store"})
            await answer(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith((UPLOADS, RESULTS)):
            await self._draining.transfer(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        """Return why this replica does not serve it; "" if it does."""
        if self._draining.refuses(scope):
            return "this server is stopping"
        if scope["type"] == "websocket":
            connection = HTTPConnection(scope)
            address = connection.client.host if connection.client else ""
            if self._overflow.passes_on(visitor_cookie.visitor_of(connection.cookies), address):
                return "another server has room"
        return ""
