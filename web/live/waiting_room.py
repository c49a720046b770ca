"""Who dreams live, who waits in line, and who may come back. Everything here runs on the event loop."""
from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from .session import Session

if TYPE_CHECKING:
    from ..core.state import Studio

KEPT_SECONDS = 4.0
"""A session whose connection broke waits so long for its visitor."""
LONGEST_LINE = 100
CHECK_THREADS = 2
"""For checks of settings. They have threads of their own: those that asyncio shares may be busy with uploads."""
JOIN_SECONDS = 5.0
log = logging.getLogger(__name__)


class Guest(Protocol):
    """A connection; see ``livesocket.Visitor``."""

    address: str

    def post(self, message: bytes) -> None:
        """A picture for it; from any thread."""

    def notify(self, message: str) -> None:
        """Something that its visitor should know; from any thread."""

    def admit(self, session: Session, resumed: bool) -> None:
        """It may dream now."""

    def tell_place(self, place: int) -> None:
        """So many are before it in the line."""

    def dismiss(self, code: int, why: str, message: str = "") -> None:
        """It has to go; ``message`` is for the visitor where the short ``why`` does not say it all."""


class Hall:
    """At most ``max_sessions`` sessions; the others wait in the order in which they came."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.sessions: dict[str, Session] = {}
        """By token, until their threads have ended."""
        self.line: list[Guest] = []
        self._guests: dict[str, Guest] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._checks = ThreadPoolExecutor(CHECK_THREADS, "streamdream-settings")
        self._counting = threading.Lock()

    def enter(self, guest: Guest, token: str) -> bool:
        """Admits it to the session of that token, or as soon as there is room. False when too many wait already."""
        session = self.sessions.get(token)
        if session is not None and not session.stopped:
            self._take_up(guest, session)
            return True
        if len(self.line) >= LONGEST_LINE:
            return False
        self.line.append(guest)
        self._advance()
        return True

    def leave(self, guest: Guest, session: Session | None, for_good: bool) -> None:
        """Its connection is closed. A session that was not left for good is kept for a moment."""
        if guest in self.line:
            self.line.remove(guest)
            self._advance()
        if session is None or self._guests.get(session.token) is not guest:
            return
        del self._guests[session.token]
        session.send, session.notify = _nowhere, _nobody
        if for_good or session.stopped:
            session.stop()
        else:
            self._expiry[session.token] = asyncio.get_running_loop().call_later(KEPT_SECONDS, session.stop)

    def someone_could_come(self) -> bool:
        """Whether a session's end would let somebody in."""
        return bool(self.line)

    async def change(self, session: Session, values: Mapping[str, Any]) -> list[str]:
        """``session.change``, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, session.change, values)

    def totals(self) -> Counter[str]:
        """Pictures and dreams of all sessions so far, each counted once; from any thread."""
        with self._counting:
            totals = Counter(self._studio.counts)
            for session in self.sessions.values():
                totals.update(session.counts())
            return totals

    async def close(self) -> None:
        """Ends all sessions."""
        for session in self.sessions.values():
            session.stop()
        await asyncio.gather(*(asyncio.to_thread(session.join, JOIN_SECONDS) for session in self.sessions.values()))
        self._checks.shutdown(wait=False, cancel_futures=True)

    def _take_up(self, guest: Guest, session: Session) -> None:
        """The visitor is back, perhaps before the old connection was found to be dead."""
        if handle := self._expiry.pop(session.token, None):
            handle.cancel()
        old, self._guests[session.token] = self._guests.get(session.token), guest
        session.send, session.notify = guest.post, guest.notify
        if old is not None:
            old.dismiss(4003, "this dream goes on in another window")
        self._studio.counts["resumed"] += 1
        guest.admit(session, resumed=True)

    def _advance(self) -> None:
        """Lets in who may, and tells the others their places."""
        present = Counter(session.address for session in self.sessions.values())
        for guest in list(self.line):
            if len(self.sessions) >= self._studio.web.max_sessions:
                break
            if present[guest.address] < self._most_of(guest.address):
                present[guest.address] += 1
                self.line.remove(guest)
                self._begin(guest)
        for place, guest in enumerate(self.line):
            guest.tell_place(place)

    def _begin(self, guest: Guest) -> None:
        loop = asyncio.get_running_loop()

        def ended(error: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended, session, error)

        session = Session(self._studio, guest.address, guest.post, ended, guest.notify)
        with self._counting:
            self.sessions[session.token] = session
        self._guests[session.token] = guest
        session.start()
        self._studio.counts["sessions"] += 1
        log.info("a live dream began", extra={"facts": {"session": session.token[:4], "address": guest.address}})
        guest.admit(session, resumed=False)

    def _ended(self, session: Session, error: str) -> None:
        """Its threads are gone."""
        with self._counting:
            if self.sessions.pop(session.token, None):
                self._studio.counts.update(session.counts())
        if handle := self._expiry.pop(session.token, None):
            handle.cancel()
        if guest := self._guests.pop(session.token, None):
            guest.dismiss(4000, "the dream has ended" if error else "", error)
        self._advance()

    def _most_of(self, address: str) -> int:
        web = self._studio.web
        if web.sessions_per_address:
            return web.sessions_per_address
        return web.max_sessions if is_loopback(address) else max(1, web.max_sessions - 1)


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _nowhere(message: bytes) -> None:
    """Where pictures go while nobody looks."""


def _nobody(message: str) -> None:
    """Whom words reach meanwhile."""
