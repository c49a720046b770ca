"""Limits below the app, as protocols of uvicorn: connections of one address, time for headers, frames of a socket."""
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

MAX_READ_BYTES = 32 * 1024
"""Of a socket at once. asyncio reads 256 KiB; parsing those as thousands of small messages blocks the event loop."""
CLOSE_SECONDS = 1.0
"""Until a socket that was told to close is cut off."""


LOG_SECONDS = 10.0
"""Between two log lines about refused connections."""
log = logging.getLogger(__name__)


class RefusalLog:
    """Logs one line for many refused connections."""

    def __init__(self) -> None:
        self._count, self._due_seconds = 0, 0.0

    def note(self, address: str, most: int) -> None:
        self._count += 1
        if time.monotonic() >= self._due_seconds:
            log.warning("connections refused: there are %d from one address already; --connections-per-address is "
                        "the limit, --trusted-proxies names a proxy", most,
                        extra={"facts": {"address": address, "refused": self._count}})
            self._count, self._due_seconds = 0, time.monotonic() + LOG_SECONDS


def limit_connections(
    most_from_address: int, counts: Counter[str], is_proxy: Callable[[str], bool] = lambda address: False
) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """Make uvicorn's protocols with those limits. A connection above ``most_from_address`` is closed at once; those of
    proxies are not counted, as each serves many visitors.
    """
    open_connections: Counter[str] = Counter()
    refusals = RefusalLog()

    def address_of(transport: Any) -> str:
        return normalize((get_remote_addr(transport) or ("",))[0])

    def release(address: str | None) -> None:
        if address is not None:
            open_connections[address] -= 1
            if open_connections[address] <= 0:
                del open_connections[address]

    class Limited(H11Protocol):
        address: str | None = None
        header_timeout: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            address = address_of(transport)
            if open_connections[address] >= most_from_address and not is_proxy(address):
                counts["refused connections"] += 1
                refusals.note(address, most_from_address)
                transport.abort()
                return
            self.address = address
            open_connections[address] += 1
            super().connection_made(transport)
            self.watch()

        def connection_lost(self, error: Exception | None) -> None:
            if self.transport is not None:
                self.stop_watching()
                release(self.address)
                super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self.stop_watching()
            elif self.header_timeout is None:
                self.watch()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self.stop_watching()
            release(self.address)
            super().handle_websocket_upgrade(event)

        def send_400_response(self, message: str) -> None:
            """Answer what is no HTTP as uvicorn does, with our headers. The app does not see it."""
            counts["refused 400"] += 1
            log.info("refused: this is no HTTP", extra={"facts": {"address": self.address}})
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *HEADERS]
            for event in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                          h11.Data(data=message.encode()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def watch(self) -> None:
            self.header_timeout = self.loop.call_later(limits.HEADERS_SECONDS, self.transport.abort)

        def stop_watching(self) -> None:
            if self.header_timeout is not None:
                self.header_timeout.cancel()
                self.header_timeout = None

    class LimitedSocket(WebSocketsSansIOProtocol):
        address = ""
        frame_allowance: TokenBucket

        def connection_made(self, transport: Any) -> None:
            self.address = address_of(transport)
            open_connections[self.address] += 1
            transport.max_size, self.close_timeout = MAX_READ_BYTES, CLOSE_SECONDS
            self.frame_allowance = TokenBucket(limits.MAX_FRAMES_PER_SECOND, limits.MAX_FRAME_BURST)
            super().connection_made(transport)

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
            """Return False once too many frames came; then the connection is cut."""
            if self.transport.is_closing():
                return False
            if not self.frame_allowance.take():
                counts["refused floods"] += 1
                self.transport.abort()
                return False
            return True

        def connection_lost(self, error: Exception | None) -> None:
            release(self.address)
            super().connection_lost(error)

        def handle_connect(self, event: Any) -> None:
            """Add our headers where the library refuses a handshake."""
            accept = self.conn.accept

            def accept_with_headers(request: Any) -> Any:
                response = accept(request)
                if response.status_code != 101:
                    counts[f"refused {response.status_code}"] += 1
                    log.info("refused: this is no handshake of a WebSocket", extra={"facts": {"address": self.address}})
                    response.headers.update({name.decode(): value.decode() for name, value in HEADERS})
                return response

            self.conn.accept = accept_with_headers  # type: ignore[method-assign]
            super().handle_connect(event)

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
                self.handshake_complete = True  # else uvicorn takes a refusal for an error, and logs it

    return Limited, LimitedSocket
