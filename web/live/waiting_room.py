"""Who dreams live, who waits in line, and who may come back. Everything here runs on the event loop."""
from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from ..auth.proxies import is_loopback
from .session import Session

if TYPE_CHECKING:
    from ..core.state import AppState

RECONNECT_SECONDS = 4.0
"""A session whose connection broke waits so long for its visitor."""
MAX_QUEUE = 100
CHECK_THREADS = 2
"""For checks of settings. They have threads of their own: those that asyncio shares may be busy with uploads."""
JOIN_SECONDS = 5.0
log = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection; see ``livesocket.Visitor``."""

    address: str

    def post(self, message: bytes) -> None:
        """A picture for it; from any thread."""

    def notify(self, message: str) -> None:
        """Something that its visitor should know; from any thread."""

    def admit(self, session: Session, resumed: bool) -> None:
        """It may dream now."""

    def send_position(self, place: int) -> None:
        """So many are before it in the line."""

    def close(self, code: int, why: str, message: str = "") -> None:
        """It has to go; ``message`` is for the visitor where the short ``why`` does not say it all."""


class WaitingRoom:
    """At most ``max_sessions`` sessions; the others wait in the order in which they came."""

    def __init__(self, app_state: AppState) -> None:
        self._app_state = app_state
        self.sessions: dict[str, Session] = {}
        """By token, until their threads have ended."""
        self.queue: list[Connection] = []
        self._connections: dict[str, Connection] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._checks = ThreadPoolExecutor(CHECK_THREADS, "streamdream-settings")
        self._counting = threading.Lock()

    def enter(self, connection: Connection, token: str) -> bool:
        """Admits it to the session of that token, or as soon as there is room. False when too many wait already."""
        session = self.sessions.get(token)
        if session is not None and not session.stopped:
            self._resume(connection, session)
            return True
        if len(self.queue) >= MAX_QUEUE:
            return False
        self.queue.append(connection)
        self._admit_next()
        return True

    def leave(self, connection: Connection, session: Session | None, for_good: bool) -> None:
        """Its connection is closed. A session that was not left for good is kept for a moment."""
        if connection in self.queue:
            self.queue.remove(connection)
            self._admit_next()
        if session is None or self._connections.get(session.token) is not connection:
            return
        del self._connections[session.token]
        session.send, session.notify = _discard, _nobody
        if for_good or session.stopped:
            session.stop()
        else:
            self._expiry[session.token] = asyncio.get_running_loop().call_later(RECONNECT_SECONDS, session.stop)

    def has_waiting(self) -> bool:
        """Whether a session's end would let somebody in."""
        return bool(self.queue)

    async def change(self, session: Session, values: Mapping[str, Any]) -> list[str]:
        """``session.change``, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, session.change, values)

    def totals(self) -> Counter[str]:
        """Pictures and dreams of all sessions so far, each counted once; from any thread."""
        with self._counting:
            totals = Counter(self._app_state.counts)
            for session in self.sessions.values():
                totals.update(session.counts())
            return totals

    async def close(self) -> None:
        """Ends all sessions."""
        for session in self.sessions.values():
            session.stop()
        await asyncio.gather(*(asyncio.to_thread(session.join, JOIN_SECONDS) for session in self.sessions.values()))
        self._checks.shutdown(wait=False, cancel_futures=True)

    def _resume(self, connection: Connection, session: Session) -> None:
        """The visitor is back, perhaps before the old connection was found to be dead."""
        if handle := self._expiry.pop(session.token, None):
            handle.cancel()
        old, self._connections[session.token] = self._connections.get(session.token), connection
        session.send, session.notify = connection.post, connection.notify
        if old is not None:
            old.close(4003, "this dream goes on in another window")
        self._app_state.counts["resumed"] += 1
        connection.admit(session, resumed=True)

    def _admit_next(self) -> None:
        """Lets in who may, and tells the others their places."""
        present = Counter(session.address for session in self.sessions.values())
        for connection in list(self.queue):
            if len(self.sessions) >= self._app_state.web.max_sessions:
                break
            if present[connection.address] < self._max_sessions_for(connection.address):
                present[connection.address] += 1
                self.queue.remove(connection)
                self._begin(connection)
        for place, connection in enumerate(self.queue):
            connection.send_position(place)

    def _begin(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()

        def ended(error: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended, session, error)

        session = Session(self._app_state, connection.address, connection.post, ended, connection.notify)
        with self._counting:
            self.sessions[session.token] = session
        self._connections[session.token] = connection
        session.start()
        self._app_state.counts["sessions"] += 1
        log.info("a live dream began", extra={"facts": {"session": session.token[:4], "address": connection.address}})
        connection.admit(session, resumed=False)

    def _ended(self, session: Session, error: str) -> None:
        """Its threads are gone."""
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
    """Where pictures go while nobody looks."""


def _nobody(message: str) -> None:
    """Whom words reach meanwhile."""
