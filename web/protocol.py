"""HTTP below the app: how many connections one address may hold, and how long a request may take to be said."""
from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .rate_limit import TokenBucket

REQUEST_SECONDS = 10.0
"""From the opening of a connection, or the first byte of another request on it, until its headers are complete."""

MAX_READ_BYTES = 32 * 1024
"""Of a socket at once. asyncio reads 256 KiB; to parse those as thousands of small messages holds the event loop."""
MAX_FRAMES_PER_SECOND, MAX_BURST = 500.0, 1000
"""Pings, pongs and parts of messages from one socket; whole messages are counted by the app."""
CLOSE_SECONDS = 1.0
"""How long one that was told to close may take, and may go on sending."""


def limited(most_from_address: int, counts: Counter[str]) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """uvicorn's protocols with those two limits. A connection above the number is closed at once."""
    held: Counter[str] = Counter()

    def let_go(address: str | None) -> None:
        if address is not None:
            held[address] -= 1
            if not held[address]:
                del held[address]

    class Limited(H11Protocol):
        address: str | None = None
        patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            address = (get_remote_addr(transport) or ("",))[0]
            if held[address] >= most_from_address:
                counts["refused connections"] += 1
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
            self.address = (get_remote_addr(transport) or ("",))[0]
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

    return Limited, LimitedSocket
