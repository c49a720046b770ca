"""Limits below the app, as protocols of uvicorn: connections per address, time for headers, WebSocket frames."""
from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..auth.proxies import normalize
from ..core import limits
from ..core.rate_limit import TokenBucket
from ..core.response import HEADERS
from ..live.waiting_room import CLOSED_RESTART

MAX_READ_BYTES = 32 * 1024
"""Maximum of one read from a WebSocket. asyncio reads 256 KiB, which may be thousands of small messages; parsing those
blocks the event loop."""
CLOSE_SECONDS = 1.0
"""Time between the close of a WebSocket and the abort of its connection."""
LOG_SECONDS = 10.0
"""Interval between two log lines about refused connections."""
log = logging.getLogger(__name__)


class RefusalLog:
    """Logs one line for many refused connections."""

    def __init__(self) -> None:
        self._count, self._due_seconds = 0, 0.0

    def note(self, address: str, max_per_address: int) -> None:
        self._count += 1
        if time.monotonic() >= self._due_seconds:
            log.warning("connections refused: there are %d from one address already; --connections-per-address is "
                        "the limit, --trusted-proxies names a proxy", max_per_address,
                        extra={"facts": {"address": address, "refused": self._count}})
            self._count, self._due_seconds = 0, time.monotonic() + LOG_SECONDS


class ConnectionTable:
    """Counts the open connections of each address. Used in the event loop only."""

    def __init__(self, max_per_address: int, counts: Counter[str], is_proxy: Callable[[str], bool]) -> None:
        self.counts = counts
        self._max_per_address, self._is_proxy = max_per_address, is_proxy
        self._open: Counter[str] = Counter()
        self._refusals = RefusalLog()

    def try_add(self, address: str) -> bool:
        """Add a connection unless its address has the maximum already; return whether it was added."""
        if self._open[address] >= self._max_per_address and not self._is_proxy(address):
            self.counts["refused connections"] += 1
            self._refusals.note(address, self._max_per_address)
            return False
        self.add(address)
        return True

    def add(self, address: str) -> None:
        self._open[address] += 1

    def remove(self, address: str | None) -> None:
        if address is not None:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]


class LimitedHttp(H11Protocol):
    """HTTP with a limit of connections per address and of the time for the headers."""

    open_connections: ConnectionTable
    address: str | None = None
    header_timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        address = _address_of(transport)
        if not self.open_connections.try_add(address):
            transport.abort()
            return
        self.address = address
        super().connection_made(transport)
        self.start_header_timeout()

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self.cancel_header_timeout()
            self.open_connections.remove(self.address)
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self.cancel_header_timeout()
        elif self.header_timeout is None:
            self.start_header_timeout()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self.cancel_header_timeout()
        self.open_connections.remove(self.address)
        super().handle_websocket_upgrade(event)

    def send_400_response(self, message: str) -> None:
        """Answer what is no HTTP as uvicorn does, with our headers. The app does not see it."""
        self.open_connections.counts["refused 400"] += 1
        log.info("refused: not HTTP", extra={"facts": {"address": self.address}})
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *HEADERS]
        for event in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                      h11.Data(data=message.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def start_header_timeout(self) -> None:
        self.header_timeout = self.loop.call_later(limits.HEADERS_SECONDS, self.transport.abort)

    def cancel_header_timeout(self) -> None:
        if self.header_timeout is not None:
            self.header_timeout.cancel()
            self.header_timeout = None


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket with a limit of control frames and fragments per second. ``LimitedHttp`` has checked its address."""

    open_connections: ConnectionTable
    address = ""
    frame_allowance: TokenBucket

    def connection_made(self, transport: Any) -> None:
        self.address = _address_of(transport)
        self.open_connections.add(self.address)
        transport.max_size, self.close_timeout = MAX_READ_BYTES, CLOSE_SECONDS
        self.frame_allowance = TokenBucket(limits.MAX_FRAMES_PER_SECOND, limits.MAX_FRAME_BURST)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.open_connections.remove(self.address)
        super().connection_lost(error)

    def shutdown(self) -> None:
        """Close with a handshake when the server stops, as the app does. uvicorn closes the socket at once, which is
        reset by the next frame of a camera: its browser then fails without the code that says why.
        """
        if self.transport.is_closing():  # its client has closed, and does not read: uvicorn would raise
            self.transport.abort()
            return
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CLOSED_RESTART})
        self.conn.send_close(CLOSED_RESTART)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def handle_ping(self) -> None:
        if self.may_continue():
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        if self.may_continue():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        if self.may_continue():
            super().handle_cont(event)

    def may_continue(self) -> bool:
        """Return False after too many frames; the connection is then aborted."""
        if self.transport.is_closing():
            return False
        if not self.frame_allowance.take():
            self.open_connections.counts["refused floods"] += 1
            self.transport.abort()
            return False
        return True

    def handle_connect(self, event: Any) -> None:
        """Add our headers where the library refuses a handshake."""
        accept = self.conn.accept

        def accept_with_headers(request: Any) -> Any:
            response = accept(request)
            if response.status_code != 101:
                self.open_connections.counts[f"refused {response.status_code}"] += 1
                log.info("refused: not a WebSocket handshake", extra={"facts": {"address": self.address}})
                response.headers.update({name.decode(): value.decode() for name, value in HEADERS})
            return response

        self.conn.accept = accept_with_headers  # type: ignore[method-assign]
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # else uvicorn takes a refusal for an error, and logs it


def limit_connections(
    max_per_address: int, counts: Counter[str], is_proxy: Callable[[str], bool] = lambda address: False
) -> tuple[type[LimitedHttp], type[LimitedWebSocket]]:
    """Make protocols for one server of uvicorn, which takes classes.

    A connection above ``max_per_address`` is closed at once; those of proxies are not counted, as each serves many
    visitors. ``counts`` gets the number of refusals by reason.
    """
    table = ConnectionTable(max_per_address, counts, is_proxy)

    class Http(LimitedHttp):
        open_connections = table

    class WebSocket(LimitedWebSocket):
        open_connections = table

    return Http, WebSocket


def _address_of(transport: Any) -> str:
    return normalize((get_remote_addr(transport) or ("",))[0])
