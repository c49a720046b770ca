"""Whose word counts on where a request comes from: a trusted proxy's. Then limits count by the visitor behind it.

    connection ──▶ from a trusted proxy: client and scheme are what it says ──▶ the app
               └─▶ from anybody else: what it says of that is left out      ──▶ the app
"""
from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from streamdream.errors import UsageError

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix", b"x-forwarded-port",
             b"x-forwarded-ssl", b"x-real-ip", b"forwarded")
"""Headers of proxies."""
NEVER = (b"x-gradio-server",)
"""Headers that nobody may send: this one is what Gradio takes for its own address."""
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
"""What a Host header may be."""
ROOT_PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)
"""What a proxy's prefix of the path may be, "" included."""
MAX_HOST = 64
"""Letters of an address; what is longer is none."""
WAIT_SECONDS = 5.0
"""A request of a visitor who has too many open waits so long for one of them to end."""


def parse_networks(text: str) -> list[Network]:
    """Addresses and networks with commas, as in ``127.0.0.1, 10.0.0.0/8``. Raises UsageError."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--trusted-proxies {text}: {error}; as in 127.0.0.1,10.0.0.0/8") from None


def normalize(host: str) -> str:
    """An address as limits count it: a public IPv6 one as its network of 64 bits, which is what one visitor has."""
    host = _unwrap(host)[:MAX_HOST]
    with contextlib.suppress(ValueError):
        if ":" in host and ipaddress.ip_address(host).is_global:
            return str(ipaddress.ip_network(f"{host}/64", strict=False).network_address)
    return host


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach the address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_root_path(text: str) -> str:
    """``/dream/`` -> ``/dream``. Raises UsageError."""
    path = text.strip().rstrip("/")
    if not ROOT_PATH.fullmatch(path):
        raise UsageError(f"--root-path {text}: it is a path that begins with /, as in /dream")
    return path


def _first_host(value: bytes) -> bytes:
    """Of the hosts that proxies have listed; empty where it is none."""
    host = value.split(b",")[0].strip()
    return host if HOST.fullmatch(host.decode("latin-1")) else b""


def _unwrap(host: str) -> str:
    """``::ffff:10.0.0.1``, as a socket for both families says it -> ``10.0.0.1``."""
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
        return str(mapped or host)
    return host


class TrustedProxies:
    """An ASGI app around another one, which finds the visitor's address, as ``normalize`` writes it, in its scope."""

    def __init__(self, app: App, trusted: str) -> None:
        self._app = app
        inner: Any = self._normalized
        self._forwarded: Any = ProxyHeadersMiddleware(inner, list(map(str, parse_networks(trusted))))

    def trust(self, host: str) -> bool:
        return _unwrap(host) in self._forwarded.trusted_hosts

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        host, port = scope.get("client") or ("", 0)
        host = _unwrap(host)
        unwanted = NEVER if self.trust(host) else NEVER + FORWARDED
        headers = [(name, _first_host(value) if name == b"x-forwarded-host" else value)
                   for name, value in scope["headers"] if name not in unwanted]
        headers = [pair for pair in headers if pair != (b"x-forwarded-host", b"")]
        # for others than proxies it does nothing
        await self._forwarded({**scope, "headers": headers, "client": (host, port)}, receive, send)

    async def _normalized(self, scope: Scope, receive: Any, send: Any) -> None:
        host, port = scope["client"]
        await self._app({**scope, "client": (normalize(host), port)}, receive, send)


class TooManyRequests(Exception):
    """One visitor has too many requests open."""


@dataclass
class _Gate:
    places: asyncio.Semaphore
    users: int = 0


class RequestLimit:
    """How many requests and sockets one visitor may have open; on one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._gates: dict[str, _Gate] = {}

    @contextlib.asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """Waits for a place: a page may ask for many things at once. Raises TooManyRequests."""
        gate = self._gates.setdefault(address, _Gate(asyncio.Semaphore(self._most)))
        if gate.users >= 2 * self._most:
            raise TooManyRequests
        gate.users += 1
        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await gate.places.acquire()
            except TimeoutError:
                raise TooManyRequests from None
            try:
                yield
            finally:
                gate.places.release()
        finally:
            gate.users -= 1
            if not gate.users:
                self._gates.pop(address, None)
