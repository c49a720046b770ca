"""HTTP below the app: how many connections one address may hold, and how long a request may take to be said."""
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
from ..core.rate_limit import TokenBucket
from ..core.response import HEADERS

REQUEST_SECONDS = 10.0
"""From the opening of a connection, or the first byte of another request on it, until its headers are complete."""

MAX_READ_BYTES = 32 * 1024
"""Of a socket at once. asyncio reads 256 KiB; to parse those as thousands of small messages holds the event loop."""
MAX_FRAMES_PER_SECOND, MAX_BURST = 500.0, 1000
"""Pings, pongs and parts of messages from one socket; whole messages are counted by the app."""
CLOSE_SECONDS = 1.0
"""How long one that was told to close may take, and may go on sending."""


LOG_SECONDS = 10.0
"""Between two lines of the log on connections that were refused."""
log = logging.getLogger(__name__)


class RefusalLog:
    """One line for many refused connections."""

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
    """uvicorn's protocols with those two limits. A connection above the number is closed at once; those of proxies are
    not counted, as they are many visitors'.
    """
    held: Counter[str] = Counter()
    refusals = RefusalLog()

    def address_of(transport: Any) -> str:
        return normalize((get_remote_addr(transport) or ("",))[0])

    def let_go(address: str | None) -> None:
        if address is not None:
            held[address] -= 1
            if held[address] <= 0:
                del held[address]

    class Limited(H11Protocol):
        address: str | None = None
        patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            address = address_of(transport)
            if held[address] >= most_from_address and not is_proxy(address):
                counts["refused connections"] += 1
                refusals.note(address, most_from_address)
                transport.abort()
                return
            self.address = address
            held[address] += 1
            super().connection_made(transport)
            self.watch()

        def connection_lost(self, error: Exception | None) -> None:
            if self.transport is not None:
                self.stop_watching()
                let_go(self.address)
                super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self.stop_watching()
            elif self.patience is None:
                self.watch()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self.stop_watching()
            let_go(self.address)
            super().handle_websocket_upgrade(event)

        def send_400_response(self, message: str) -> None:
            """uvicorn's, with our headers; what came is no HTTP, so no app sees it."""
            counts["refused 400"] += 1
            log.info("refused: this is no HTTP", extra={"facts": {"address": self.address}})
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *HEADERS]
            for event in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                          h11.Data(data=message.encode()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def watch(self) -> None:
            self.patience = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

        def stop_watching(self) -> None:
            if self.patience is not None:
                self.patience.cancel()
                self.patience = None

    class LimitedSocket(WebSocketsSansIOProtocol):
        address = ""
        frame_allowance: TokenBucket

        def connection_made(self, transport: Any) -> None:
            self.address = address_of(transport)
            held[self.address] += 1
            transport.max_size, self.close_timeout = MAX_READ_BYTES, CLOSE_SECONDS
            self.frame_allowance = TokenBucket(MAX_FRAMES_PER_SECOND, MAX_BURST)
            super().connection_made(transport)

        def handle_ping(self) -> None:
            if self.may_go_on():
                super().handle_ping()

        def handle_pong(self, event: Any) -> None:
            if self.may_go_on():
                super().handle_pong(event)

        def handle_cont(self, event: Any) -> None:
            if self.may_go_on():
                super().handle_cont(event)

        def may_go_on(self) -> bool:
            """False once too many frames came, and the connection is cut."""
            if self.transport.is_closing():
                return False
            if not self.frame_allowance.take():
                counts["refused floods"] += 1
                self.transport.abort()
                return False
            return True

        def connection_lost(self, error: Exception | None) -> None:
            let_go(self.address)
            super().connection_lost(error)

        def handle_connect(self, event: Any) -> None:
            """A handshake that is none is refused by the library, without our headers."""
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
