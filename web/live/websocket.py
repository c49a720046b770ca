"""The WebSocket of the page Live: receives frames, sends residuals, exchanges JSON messages.

Up, text: ``hello`` {session, values}, ``settings`` {values}, ``freeze`` {on}, ``reset``, ``bye``. Up, bytes: the header
``browser_io.HEADER`` and a JPEG with at most as many lines as the field. Down, text: ``waiting`` {place, sessions,
seconds}, ``welcome``, ``lines`` {lines}, ``settings`` {values, answers}, ``refused`` {message, values, answers},
``stats``, and ``error`` {message} before the end. Down, bytes: the header with the number of the frame, and
``split_residual`` as JPEG.
The height of the field is ``lines`` in ``welcome`` and ``lines``, ``field`` in ``stats``.
``answers`` is the number of settings messages that an answer is for: those that come close together are merged.
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..auth import visitor_cookie
from ..core import limits
from ..core.rate_limit import TokenBucket
from .browser_io import HEADER
from .pending_settings import PendingSettings
from .session import LiveSession
from .waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ..core.state import AppState

MAX_REASON_BYTES = 123
"""Maximum size of the reason in a close frame of a WebSocket."""
GOODBYE_SECONDS = 2.0
"""Timeout of the last message, which the client may not read."""
SLOW_SEND_SECONDS = 0.03
"""When sending a frame takes longer, the JPEG quality is reduced."""
SHOWN_WAIT_SECONDS = 10
"""The wait in the queue is rounded up to multiples of this."""
CLOSED_IDLE, CLOSED_TIME, CLOSED_RULES, CLOSED_FULL = 4001, 4002, 1008, 1013


class LiveConnection:
    """One connection, from its start to its end."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom, socket: WebSocket) -> None:
        self._app_state, self._waiting_room, self._socket = app_state, waiting_room, socket
        self.address = socket.client.host if socket.client else ""
        self.visitor = visitor_cookie.visitor_of(socket.cookies)
        self._loop = asyncio.get_running_loop()
        self._session: LiveSession | None = None
        self._newest: bytes | None = None
        self._outbox: dict[str, dict[str, Any]] = {}
        """Messages by type, at most one of each; oldest first."""
        self._changed = asyncio.Event()
        self._close_reason: tuple[int, str, str] | None = None
        self._left_for_good = False
        self._said_hello = self._welcomed = self._resumed = False
        self._sent_field_height = 0
        self._position = (-1, 0)
        self._pending = PendingSettings()
        self._has_pending = asyncio.Event()
        """Set when settings or the welcome wait, and there is a session."""
        self._allowance = TokenBucket(limits.MAX_MESSAGES_PER_SECOND, limits.MAX_MESSAGE_BURST)

    async def serve(self) -> None:
        await self._socket.accept()
        tasks = {asyncio.create_task(work()) for work in (self._read, self._write, self._check_settings)}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            self._waiting_room.leave(self, self._session, self._left_for_good or self._close_reason is not None)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
                raise result  # the other two mean that the connection is closed
        if self._close_reason and self._socket.client_state is WebSocketState.CONNECTED:
            with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._say_goodbye(*self._close_reason)

    async def _say_goodbye(self, code: int, reason: str, message: str) -> None:
        if message:
            await self._socket.send_text(json.dumps({"type": "error", "message": message}))
        await self._socket.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))

    # --- called by the waiting room -----------------------------------------------------------------------------------

    def post(self, message: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._set_frame, message)

    def _set_frame(self, message: bytes) -> None:
        self._newest = message
        self._changed.set()

    def notify(self, message: str) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._answer, 0, message)

    def admit(self, session: LiveSession, resumed: bool) -> None:
        self._session, self._resumed = session, resumed
        session.last_frame_at = time.monotonic()
        self._has_pending.set()

    def send_position(self, position: int, wait_seconds: float) -> None:
        rounded = SHOWN_WAIT_SECONDS * math.ceil(wait_seconds / SHOWN_WAIT_SECONDS)
        if (position, rounded) != self._position:
            self._position = (position, rounded)
            self._send({"type": "waiting", "place": position, "seconds": rounded,
                        "sessions": self._app_state.web.max_sessions})

    def close(self, code: int, reason: str, message: str = "") -> None:
        self._close_reason = self._close_reason or (code, reason, message)
        self._changed.set()

    # --- settings -----------------------------------------------------------------------------------------------------

    async def _check_settings(self) -> None:
        """Check pending settings in a thread, at a limited rate. Send the welcome after the first check."""
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
            await asyncio.sleep(1 / limits.SETTING_CHECKS_PER_SECOND)

    def _welcome(self, session: LiveSession) -> None:
        self._welcomed = True
        self._sent_field_height = session.field_height
        self._send({"type": "welcome", "session": session.token, "resumed": self._resumed,
                   "model": self._app_state.model.name, "frozen": session.controls.frozen,
                   "lines": session.field_height, "rate": self._app_state.frame_rate, "values": self._values()})

    def _answer(self, messages: int, problem: str = "") -> None:
        """Send the current settings, and the problem with those that were requested."""
        if self._session is not None:
            self._send({"type": "refused" if problem else "settings", "message": problem, "answers": messages,
                       "values": self._values()})

    # --- down ---------------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        """Queue a message. It replaces an older one of its type, and answers for it, too."""
        older = self._outbox.pop(message["type"], None)
        if older is not None and "answers" in message:
            message["answers"] += older["answers"]
        self._outbox[message["type"]] = message
        self._changed.set()

    async def _write(self) -> None:
        """Send messages and frames; check time limits every second."""
        due = time.monotonic()
        while self._close_reason is None:
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                due = time.monotonic() + 1
                self._tick()
            self._changed.clear()
            while self._outbox:
                message = self._outbox.pop(next(iter(self._outbox)))
                await self._socket.send_text(json.dumps(message))
            frame, self._newest = self._newest, None
            if frame is not None:
                began = time.monotonic()
                await self._socket.send_bytes(frame)
                if self._session is not None:
                    self._session.adapt_quality(is_slow=time.monotonic() - began > SLOW_SEND_SECONDS)
                self._send_field_height()

    def _send_field_height(self) -> None:
        if self._session is not None and self._session.field_height != self._sent_field_height:
            self._sent_field_height = self._session.field_height
            self._send({"type": "lines", "lines": self._sent_field_height})

    def _tick(self) -> None:
        session, web, now = self._session, self._app_state.web, time.monotonic()
        if session is None:
            return
        if now - session.last_frame_at > web.idle_seconds:
            self.close(CLOSED_IDLE, "the camera has sent nothing for a while")
        elif now - session.started_at > web.session_seconds and self._waiting_room.has_waiting():
            self.close(CLOSED_TIME, "others wait for their turn")
        else:
            self._send({"type": "stats", "rate": self._app_state.frame_rate, **session.facts()})

    # --- up -----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None if self._said_hello else limits.HELLO_SECONDS):
                    message = await self._socket.receive()
            except TimeoutError:
                self.close(CLOSED_RULES, "the first message must be hello")
                return
            if message["type"] == "websocket.disconnect":
                self._left_for_good |= message.get("code") in (1000, 1001)
                return
            if not self._allowance.take():
                self.close(CLOSED_RULES, "too many messages at once")
                return
            try:
                if message.get("bytes") is not None:
                    self._on_frame(message["bytes"])
                else:
                    self._on_message(json.loads(message.get("text", "")[:limits.MAX_MESSAGE_CHARACTERS]))
            except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError):
                self.close(CLOSED_RULES, "invalid message")
                return
            await asyncio.sleep(0)  # else other tasks wait until all received messages are read

    def _on_frame(self, message: bytes) -> None:
        if len(message) > limits.MAX_JPEG_BYTES or len(message) <= HEADER.size:
            raise ValueError("size")
        if self._session is not None and self._welcomed:
            self._session.push(HEADER.unpack_from(message)[0], message[HEADER.size:])

    def _on_message(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "hello" and not self._said_hello:
            self._said_hello = True
            self._request(message.get("values") or {}, 0)
            if not self._waiting_room.enter(self, str(message.get("session", ""))):
                self.close(CLOSED_FULL, "the queue is full; try again later")
        elif kind == "bye":
            self._left_for_good = True
        elif kind == "settings":
            self._request(message["values"], 1)
        elif self._session is None:
            return  # without a session they have no effect
        elif kind == "freeze":
            self._session.controls.frozen = bool(message["on"])
        elif kind == "reset":
            self._session.controls.reset()
        else:
            raise ValueError(kind)

    def _request(self, values: Mapping[str, Any], messages: int) -> None:
        self._pending.add(values, messages)
        if self._session is not None:
            self._has_pending.set()

    def _values(self) -> dict[str, Any]:
        assert self._session is not None
        dream_request = self._session.controls.request
        return dataclasses.asdict(dream_request.dream) | {"model": dream_request.model}
