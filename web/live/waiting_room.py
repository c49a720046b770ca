"""Live sessions, the queue for them, and reconnection. Everything here runs on the event loop."""
from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from ..auth.proxies import is_loopback
from ..core import limits
from .session import LiveSession

if TYPE_CHECKING:
    from ..core.state import AppState

CHECK_THREADS = 2
"""Threads for the checks of settings only; those of asyncio's shared pool may all be busy."""
JOIN_SECONDS = 5.0
CLOSED_RESTART = 1012
"""Code of a WebSocket that is closed because the server stops."""
REFRESH_SECONDS = 10.0
"""How often visitors in the queue are told how long they wait."""
log = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection; see ``websocket.LiveConnection``."""

    address: str
    visitor: str
    """As ``visitor_cookie.visitor_of`` returns it."""

    def post(self, message: bytes) -> None:
        """Send a frame. Thread-safe."""

    def notify(self, message: str) -> None:
        """Send a message for the visitor. Thread-safe."""

    def admit(self, session: LiveSession, resumed: bool) -> None:
        """Called when the connection has a session."""

    def send_position(self, position: int, wait_seconds: float) -> None:
        """Send the number of connections before this one in the queue, and for how long it waits at most."""

    def close(self, code: int, reason: str, message: str = "") -> None:
        """Close the connection. ``message`` is for the visitor, longer than ``reason``."""


class WaitingRoom:
    """Runs at most ``max_sessions`` sessions; other connections wait in a FIFO queue."""

    def __init__(self, app_state: AppState) -> None:
        self._app_state = app_state
        self.sessions: dict[str, LiveSession] = {}
        """Sessions by token, until their threads have ended."""
        self.queue: list[Connection] = []
        self._connections: dict[str, Connection] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._refresh: asyncio.TimerHandle | None = None
        """Set while connections wait."""
        self._checks = ThreadPoolExecutor(CHECK_THREADS, "streamdream-settings")
        self._counting = threading.Lock()

    def enter(self, connection: Connection, token: str) -> bool:
        """Resume the session of that token, or admit the connection as soon as there is room.

        Return False when the queue is full.
        """
        session = self.sessions.get(token)
        if session is not None and not session.stopped:
            self._resume(connection, session)
            return True
        if self._app_state.draining:  # since its handshake
            self.send_away([connection])
            return True
        if len(self.queue) >= limits.MAX_QUEUE:
            return False
        self.queue.append(connection)
        self._admit_next()
        return True

    def leave(self, connection: Connection, session: LiveSession | None, for_good: bool) -> None:
        """Remove a closed connection. Its session waits for it to reconnect, unless it was left ``for_good``."""
        if connection in self.queue:
            self.queue.remove(connection)
            self._admit_next()
        if session is None or self._connections.get(session.token) is not connection:
            return
        del self._connections[session.token]
        session.send, session.notify = _discard, _discard_text
        if for_good or session.stopped:
            session.stop()
        else:
            self._expiry[session.token] = asyncio.get_running_loop().call_later(limits.RECONNECT_SECONDS, session.stop)

    def has_waiting(self) -> bool:
        """Return whether a connection waits for a session."""
        return bool(self.queue)

    @property
    def is_full(self) -> bool:
        return len(self.sessions) >= self._app_state.web.max_sessions

    def has_room_for(self, address: str) -> bool:
        """Return whether a visitor from that address would be admitted at once."""
        present = sum(session.address == address for session in self.sessions.values())
        return not self.is_full and present < self._max_sessions_for(address)

    def visitors(self) -> set[str]:
        """Return who dreams here, or was cut off just now, but for those without a cookie."""
        return {session.visitor for session in self.sessions.values() if session.visitor and not session.stopped}

    def has_session_of(self, visitor: str) -> bool:
        """Return whether that visitor is one of ``visitors``."""
        return visitor in self.visitors()

    def send_away(self, connections: Iterable[Connection]) -> None:
        """Close connections in the queue as a server that restarts does: their pages connect again at once, and a proxy
        leads them to another server.
        """
        for connection in connections:
            connection.close(CLOSED_RESTART, "another server takes over")

    async def change(self, session: LiveSession, values: Mapping[str, Any]) -> list[str]:
        """Call ``session.change`` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, session.change, values)

    def totals(self) -> Counter[str]:
        """Return the frames and dreams of all sessions so far, each counted once. Thread-safe."""
        with self._counting:
            totals = Counter(self._app_state.counts)
            for session in self.sessions.values():
                totals.update(session.counts())
            return totals

    async def close(self) -> None:
        """End all sessions."""
        for session in self.sessions.values():
            session.stop()
        await asyncio.gather(*(asyncio.to_thread(session.join, JOIN_SECONDS) for session in self.sessions.values()))
        if self._refresh is not None:
            self._refresh.cancel()
        self._checks.shutdown(wait=False, cancel_futures=True)

    def _resume(self, connection: Connection, session: LiveSession) -> None:
        """Move a session to a new connection; the old one may still look open."""
        if handle := self._expiry.pop(session.token, None):
            handle.cancel()
        old, self._connections[session.token] = self._connections.get(session.token), connection
        session.send, session.notify = connection.post, connection.notify
        if old is not None:
            old.close(4003, "this dream continues in another window")
        self._app_state.counts["resumed"] += 1
        connection.admit(session, resumed=True)

    def _admit_next(self) -> None:
        """Admit the connections for which there is room, and send the others their positions."""
        present = Counter(session.address for session in self.sessions.values())
        for connection in list(self.queue):
            if self.is_full:
                break
            if present[connection.address] < self._max_sessions_for(connection.address):
                present[connection.address] += 1
                self.queue.remove(connection)
                self._start_session(connection)
        self._send_positions()

    def _send_positions(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None
        for position, (connection, seconds) in enumerate(zip(self.queue, self._wait_seconds(), strict=True)):
            connection.send_position(position, seconds)
        if self.queue:
            self._refresh = asyncio.get_running_loop().call_later(REFRESH_SECONDS, self._send_positions)

    def _wait_seconds(self) -> list[float]:
        """Return an upper bound of the wait of each connection in the queue: while some wait, each session ends after
        ``session_seconds``.
        """
        now, web = time.monotonic(), self._app_state.web
        places = [(max(0.0, session.started_at + web.session_seconds - now), session.address)
                  for session in self.sessions.values()]
        places += [(0.0, "")] * (web.max_sessions - len(places))
        waits = []
        for connection in self.queue:
            own = [place for place in places if place[1] == connection.address]
            place = min(own if len(own) >= self._max_sessions_for(connection.address) else places)
            places[places.index(place)] = (place[0] + web.session_seconds, connection.address)
            waits.append(place[0])
        return waits

    def _start_session(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()

        def ended(error: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_ended, session, error)

        session = LiveSession(self._app_state, connection.address, connection.post, ended, connection.notify,
                              connection.visitor)
        with self._counting:
            self.sessions[session.token] = session
        self._connections[session.token] = connection
        session.start()
        self._app_state.counts["sessions"] += 1
        log.info("a live session began", extra={"facts": {"session": session.token[:4], "address": connection.address}})
        connection.admit(session, resumed=False)

    def _on_ended(self, session: LiveSession, error: str) -> None:
        """Remove a session whose threads have ended."""
        with self._counting:
            if self.sessions.pop(session.token, None):
                self._app_state.counts.update(session.counts())
        if handle := self._expiry.pop(session.token, None):
            handle.cancel()
        if connection := self._connections.pop(session.token, None):
            connection.close(4000, "the dream has ended" if error else "", error)
        self._admit_next()

    def _max_sessions_for(self, address: str) -> int:
        web = self._app_state.web
        if web.sessions_per_address:
            return web.sessions_per_address
        return web.max_sessions if is_loopback(address) else max(1, web.max_sessions - 1)


def _discard(message: bytes) -> None:
    """Discards frames while a session has no connection."""


def _discard_text(message: str) -> None:
    """Discards messages while a session has no connection."""
