"""The live socket: a picture up, what the dream adds to it down, and a few words of JSON.

Up, as text: ``hello`` {session, values}, ``settings`` {values}, ``freeze`` {on}, ``reset``, ``bye``. As bytes: the
header of ``sessions.HEADER`` and a JPEG of at most as many lines as are dreamed. Down, as text: ``waiting`` {place},
``welcome``, ``lines`` {lines}, ``settings`` {values}, ``refused`` {message, values}, ``stats``; as bytes,
``sessions.halves`` as JPEG, with the number of the picture they belong to.
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

from streamdream.errors import StreamdreamError

from .hall import Hall
from .sessions import HEADER, LOWEST_QUALITY, MOST_BYTES, QUALITY, Session

if TYPE_CHECKING:
    from .studio import Studio

HELLO_SECONDS = 5.0
MOST_TEXT = 8192
SLOW_SEND_SECONDS = 0.03
"""When a picture takes longer to be passed on, the next ones are made smaller."""
CLOSED_IDLE, CLOSED_TIME, CLOSED_RULES, CLOSED_FULL = 4001, 4002, 1008, 1013


class Visitor:
    """One connection, from its opening to its end."""

    def __init__(self, studio: Studio, hall: Hall, socket: WebSocket) -> None:
        self._studio, self._hall, self._socket = studio, hall, socket
        self.address = socket.client.host if socket.client else ""
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._newest: bytes | None = None
        self._words: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._dismissed: tuple[int, str] | None = None
        self._left_for_good = False
        self._greeted = False
        self._told_lines = 0
        self._wanted: dict[str, Any] = {}
        """Settings that came before there was a session."""

    async def stay(self) -> None:
        await self._socket.accept()
        works = {asyncio.create_task(self._read()), asyncio.create_task(self._write())}
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            self._hall.leave(self, self._session, self._left_for_good or self._dismissed is not None)
            ends = await asyncio.gather(*works, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect | RuntimeError):
                raise end  # the others say that the connection has gone
        if self._dismissed and self._socket.client_state is WebSocketState.CONNECTED:
            code, why = self._dismissed
            await self._socket.close(code, why[:100])

    # --- what the hall tells it ---------------------------------------------------------------------------------------

    def post(self, message: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._put, message)

    def _put(self, message: bytes) -> None:
        self._newest = message
        self._changed.set()

    def admit(self, session: Session, resumed: bool) -> None:
        self._session = session
        session.heard_seconds = time.monotonic()
        complaint = self._change(self._wanted)
        self._told_lines = session.lines
        self._say({"type": "welcome", "session": session.token, "resumed": resumed, "model": self._studio.model.name,
                   "frozen": session.controls.frozen, "lines": session.lines, "rate": self._studio.frame_rate,
                   "values": self._values()})
        if complaint:
            self._say({"type": "refused", "message": complaint, "values": self._values()})

    def tell_place(self, place: int) -> None:
        self._words = [word for word in self._words if word["type"] != "waiting"]
        self._say({"type": "waiting", "place": place, "sessions": self._studio.web.max_sessions})

    def dismiss(self, code: int, why: str) -> None:
        self._dismissed = self._dismissed or (code, why)
        self._changed.set()

    # --- down ---------------------------------------------------------------------------------------------------------

    def _say(self, word: dict[str, Any]) -> None:
        self._words.append(word)
        self._changed.set()

    async def _write(self) -> None:
        """Sends what there is; looks at the clock every second."""
        due = time.monotonic()
        while self._dismissed is None:
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                due = time.monotonic() + 1
                self._look_at_the_clock()
            self._changed.clear()
            while self._words:
                await self._socket.send_text(json.dumps(self._words.pop(0)))
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
            encoder.quality = min(QUALITY, max(LOWEST_QUALITY, wanted))

    def _tell_lines(self) -> None:
        if self._session is not None and self._session.lines != self._told_lines:
            self._told_lines = self._session.lines
            self._say({"type": "lines", "lines": self._told_lines})

    def _look_at_the_clock(self) -> None:
        session, web, now = self._session, self._studio.web, time.monotonic()
        if session is None:
            return
        if now - session.heard_seconds > web.idle_seconds:
            self.dismiss(CLOSED_IDLE, "nothing came from the camera for a while")
        elif now - session.began_seconds > web.session_seconds and self._hall.someone_could_come():
            self.dismiss(CLOSED_TIME, "others wait for their turn")
        else:
            self._say({"type": "stats", "rate": self._studio.frame_rate, **session.facts()})

    # --- up -----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), None if self._greeted else HELLO_SECONDS)
            except TimeoutError:
                self.dismiss(CLOSED_RULES, "it did not say hello")
                return
            if message["type"] == "websocket.disconnect":
                self._left_for_good |= message.get("code") in (1000, 1001)
                return
            try:
                if message.get("bytes") is not None:
                    self._take_picture(message["bytes"])
                else:
                    self._take_word(json.loads(message.get("text", "")[:MOST_TEXT]))
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
                self.dismiss(CLOSED_RULES, "this was not understood")
                return

    def _take_picture(self, message: bytes) -> None:
        if len(message) > MOST_BYTES or len(message) <= HEADER.size:
            raise ValueError("size")
        if self._session is not None:
            self._session.push(HEADER.unpack_from(message)[0], message[HEADER.size:])

    def _take_word(self, word: Mapping[str, Any]) -> None:
        kind = word["type"]
        if kind == "hello" and not self._greeted:
            self._greeted = True
            self._wanted = dict(word.get("values") or {})
            if not self._hall.enter(self, str(word.get("session", ""))):
                self.dismiss(CLOSED_FULL, "many wait already; please come back later")
        elif kind == "bye":
            self._left_for_good = True
        elif kind == "settings" and self._session is None:
            self._wanted |= {key: word["values"][key] for key in list(word["values"])[:64]}
        elif self._session is None:
            return  # of no use while it waits
        elif kind == "settings":
            complaint = self._change(word["values"])
            self._say({"type": "refused" if complaint else "settings", "message": complaint,
                       "values": self._values()})
        elif kind == "freeze":
            self._session.controls.frozen = bool(word["on"])
        elif kind == "reset":
            self._session.controls.reset()
        else:
            raise ValueError(kind)

    def _change(self, values: Mapping[str, Any]) -> str:
        """Takes what is legal; says what the first that is not lacks."""
        assert self._session is not None
        complaint = ""
        try:
            self._session.change(values)
        except StreamdreamError:
            for name, value in values.items():
                try:
                    self._session.change({name: value})
                except StreamdreamError as error:
                    complaint = complaint or str(error).replace("--", "")
        return complaint

    def _values(self) -> dict[str, Any]:
        assert self._session is not None
        wish = self._session.controls.wish
        return dataclasses.asdict(wish.dream) | {"model": wish.model}
