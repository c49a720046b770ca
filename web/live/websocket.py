"""The live socket: a picture up, what the dream adds to it down, and a few words of JSON.

Up, as text: ``hello`` {session, values}, ``settings`` {values}, ``freeze`` {on}, ``reset``, ``bye``. As bytes: the
header of ``sessions.HEADER`` and a JPEG of at most as many lines as are dreamed. Down, as text: ``waiting`` {place},
``welcome``, ``lines`` {lines}, ``settings`` {values, answers}, ``refused`` {message, values, answers}, ``stats``,
``error`` {message} before the end; as bytes, ``sessions.halves`` as JPEG, with the number of the picture they belong
to. ``answers`` is how many messages of settings an answer is for: those that come close together are merged.
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..core.rate_limit import TokenBucket
from .pending_settings import PendingSettings
from .session import HEADER, MAX_JPEG_BYTES, MIN_QUALITY, QUALITY, Session
from .waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ..core.state import AppState

HELLO_SECONDS = 5.0
MAX_TEXT = 8192
CHECKS_PER_SECOND = 60.0
"""Of one visitor's settings; what comes in between is merged."""
MAX_MESSAGES_PER_SECOND, MAX_BURST = 500.0, 500
"""A visitor who sends more is put out; a page sends at most 60 pictures and 60 changes a second."""
MAX_REASON_BYTES = 123
"""A WebSocket's close frame holds no more."""
GOODBYE_SECONDS = 2.0
"""The last words are given up after that long: perhaps nobody reads them."""
SLOW_SEND_SECONDS = 0.03
"""When a picture takes longer to be passed on, the next ones are made smaller."""
CLOSED_IDLE, CLOSED_TIME, CLOSED_RULES, CLOSED_FULL = 4001, 4002, 1008, 1013


class LiveConnection:
    """One connection, from its opening to its end."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom, socket: WebSocket) -> None:
        self._app_state, self._waiting_room, self._socket = app_state, waiting_room, socket
        self.address = socket.client.host if socket.client else ""
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._newest: bytes | None = None
        self._outbox: dict[str, dict[str, Any]] = {}
        """By type, so at most one of each waits; oldest first."""
        self._changed = asyncio.Event()
        self._close_reason: tuple[int, str, str] | None = None
        self._left_for_good = False
        self._said_hello = self._welcomed = self._resumed = False
        self._told_lines = 0
        self._place = -1
        self._pending = PendingSettings()
        self._has_pending = asyncio.Event()
        """Settings wait, or a welcome does, and there is a session for them."""
        self._allowance = TokenBucket(MAX_MESSAGES_PER_SECOND, MAX_BURST)

    async def serve(self) -> None:
        await self._socket.accept()
        works = {asyncio.create_task(work()) for work in (self._read, self._write, self._settle)}
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            self._waiting_room.leave(self, self._session, self._left_for_good or self._close_reason is not None)
            ends = await asyncio.gather(*works, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect | RuntimeError):
                raise end  # the others say that the connection has gone
        if self._close_reason and self._socket.client_state is WebSocketState.CONNECTED:
            with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._say_goodbye(*self._close_reason)

    async def _say_goodbye(self, code: int, why: str, message: str) -> None:
        if message:
            await self._socket.send_text(json.dumps({"type": "error", "message": message}))
        await self._socket.close(code, why.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))

    # --- what the hall tells it ---------------------------------------------------------------------------------------

    def post(self, message: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._put, message)

    def _put(self, message: bytes) -> None:
        self._newest = message
        self._changed.set()

    def notify(self, message: str) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._answer, 0, message)

    def admit(self, session: Session, resumed: bool) -> None:
        self._session, self._resumed = session, resumed
        session.last_frame_at = time.monotonic()
        self._has_pending.set()

    def send_position(self, place: int) -> None:
        if place != self._place:
            self._place = place
            self._send({"type": "waiting", "place": place, "sessions": self._app_state.web.max_sessions})

    def close(self, code: int, why: str, message: str = "") -> None:
        self._close_reason = self._close_reason or (code, why, message)
        self._changed.set()

    # --- settings -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Have what was asked for checked, off the event loop and not too often. Then, the first time, say welcome."""
        while True:
            await self._has_pending.wait()
            self._has_pending.clear()
            if self._session is None:
                continue
            batch = self._pending.take()
            problems = list(batch.problems)
            if batch.values or not self._welcomed:
                problems += await self._waiting_room.change(self._session, batch.values)
            if self._welcomed:
                self._answer(batch.messages, *problems[:1])
            else:
                self._welcome(self._session)
                if problems:
                    self._answer(0, problems[0])
            await asyncio.sleep(1 / CHECKS_PER_SECOND)

    def _welcome(self, session: Session) -> None:
        self._welcomed = True
        self._told_lines = session.lines
        self._send({"type": "welcome", "session": session.token, "resumed": self._resumed,
                   "model": self._app_state.model.name, "frozen": session.controls.frozen, "lines": session.lines,
                   "rate": self._app_state.frame_rate, "values": self._values()})

    def _answer(self, messages: int, problem: str = "") -> None:
        """What is set now, and what of it is not as it was asked for."""
        if self._session is not None:
            self._send({"type": "refused" if problem else "settings", "message": problem, "answers": messages,
                       "values": self._values()})

    # --- down ---------------------------------------------------------------------------------------------------------

    def _send(self, word: dict[str, Any]) -> None:
        """The newest of its type is enough, once it says that it answers for the others, too."""
        before = self._outbox.pop(word["type"], None)
        if before is not None and "answers" in word:
            word["answers"] += before["answers"]
        self._outbox[word["type"]] = word
        self._changed.set()

    async def _write(self) -> None:
        """Sends what there is; looks at the clock every second."""
        due = time.monotonic()
        while self._close_reason is None:
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                due = time.monotonic() + 1
                self._tick()
            self._changed.clear()
            while self._outbox:
                word = self._outbox.pop(next(iter(self._outbox)))
                await self._socket.send_text(json.dumps(word))
            message, self._newest = self._newest, None
            if message is not None:
                began = time.monotonic()
                await self._socket.send_bytes(message)
                self._adapt(time.monotonic() - began)
                self._tell_lines()

    def _adapt(self, seconds: float) -> None:
        """Smaller pictures where the way down is narrow."""
        if self._session is not None:
            encoder = self._session.encoder
            wanted = encoder.quality - 3 if seconds > SLOW_SEND_SECONDS else encoder.quality + 1
            encoder.quality = min(QUALITY, max(MIN_QUALITY, wanted))

    def _tell_lines(self) -> None:
        if self._session is not None and self._session.lines != self._told_lines:
            self._told_lines = self._session.lines
            self._send({"type": "lines", "lines": self._told_lines})

    def _tick(self) -> None:
        session, web, now = self._session, self._app_state.web, time.monotonic()
        if session is None:
            return
        if now - session.last_frame_at > web.idle_seconds:
            self.close(CLOSED_IDLE, "nothing came from the camera for a while")
        elif now - session.started_at > web.session_seconds and self._waiting_room.has_waiting():
            self.close(CLOSED_TIME, "others wait for their turn")
        else:
            self._send({"type": "stats", "rate": self._app_state.frame_rate, **session.facts()})

    # --- up -----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), None if self._said_hello else HELLO_SECONDS)
            except TimeoutError:
                self.close(CLOSED_RULES, "it did not say hello")
                return
            if message["type"] == "websocket.disconnect":
                self._left_for_good |= message.get("code") in (1000, 1001)
                return
            if not self._allowance.take():
                self.close(CLOSED_RULES, "too many messages came at once")
                return
            try:
                if message.get("bytes") is not None:
                    self._on_frame(message["bytes"])
                else:
                    self._on_message(json.loads(message.get("text", "")[:MAX_TEXT]))
            except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError):
                self.close(CLOSED_RULES, "this was not understood")
                return
            await asyncio.sleep(0)  # what has come already is read without a pause otherwise

    def _on_frame(self, message: bytes) -> None:
        if len(message) > MAX_JPEG_BYTES or len(message) <= HEADER.size:
            raise ValueError("size")
        if self._session is not None and self._welcomed:
            self._session.push(HEADER.unpack_from(message)[0], message[HEADER.size:])

    def _on_message(self, word: Mapping[str, Any]) -> None:
        kind = word["type"]
        if kind == "hello" and not self._said_hello:
            self._said_hello = True
            self._ask(word.get("values") or {}, 0)
            if not self._waiting_room.enter(self, str(word.get("session", ""))):
                self.close(CLOSED_FULL, "many wait already; please come back later")
        elif kind == "bye":
            self._left_for_good = True
        elif kind == "settings":
            self._ask(word["values"], 1)
        elif self._session is None:
            return  # of no use while it waits
        elif kind == "freeze":
            self._session.controls.frozen = bool(word["on"])
        elif kind == "reset":
            self._session.controls.reset()
        else:
            raise ValueError(kind)

    def _ask(self, values: Mapping[str, Any], messages: int) -> None:
        self._pending.add(values, messages)
        if self._session is not None:
            self._has_pending.set()

    def _values(self) -> dict[str, Any]:
        assert self._session is not None
        dream_request = self._session.controls.request
        return dataclasses.asdict(dream_request.dream) | {"model": dream_request.model}
