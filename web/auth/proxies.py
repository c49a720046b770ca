"""Trusted proxies: their headers say where a request comes from, so that limits count each visitor behind them.

    connection ──▶ from a trusted proxy: client and scheme from its headers ──▶ the app
               └─▶ from any other address: such headers are removed         ──▶ the app
"""
from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from streamdream.errors import UsageError

from ..core import limits

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix", b"x-forwarded-port",
             b"x-forwarded-ssl", b"x-real-ip", b"forwarded")
"""Headers of proxies."""
NEVER = (b"x-gradio-server",)
"""Headers that are always removed: Gradio takes this one for its own address."""
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
"""Syntax of a Host header."""
ROOT_PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)
"""Syntax of a root path, "" included."""
MAX_HOST = 64
"""Characters of an address."""


def parse_networks(text: str) -> list[Network]:
    """Parse addresses and networks with commas, as in ``127.0.0.1, 10.0.0.0/8``. Raises UsageError."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--trusted-proxies {text}: {error}; as in 127.0.0.1,10.0.0.0/8") from None


def normalize(host: str) -> str:
    """Return an address as limits count it: a public IPv6 address as its network of 64 bits, which one visitor has."""
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
    """Return the first of the hosts that proxies have listed, or b"" if it is no host."""
    host = value.split(b",")[0].strip()
    return host if HOST.fullmatch(host.decode("latin-1")) else b""


def _unwrap(host: str) -> str:
    """``::ffff:10.0.0.1``, as sockets for both families write it -> ``10.0.0.1``."""
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
        return str(mapped or host)
    return host


class TrustedProxies:
    """ASGI middleware: the inner app gets the visitor's address in its scope, as ``normalize`` returns it."""

    def __init__(self, app: App, trusted: str) -> None:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # slow to import: not for a wrong setting

        self._app = app
        inner: Any = self._normalized
        self._forwarded: Any = ProxyHeadersMiddleware(inner, list(map(str, parse_networks(trusted))))

    def trust(self, host: str) -> bool:
        return _unwrap(host) in self._forwarded.trusted_hosts

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        host, port = scope.get("client") or ("", 0)
        host = _unwrap(host)
        removed = NEVER if self.trust(host) else NEVER + FORWARDED
        headers = [(name, _first_host(value) if name == b"x-forwarded-host" else value)
                   for name, value in scope["headers"] if name not in removed]
        headers = [pair for pair in headers if pair != (b"x-forwarded-host", b"")]
        # does nothing for other addresses
        await self._forwarded({**scope, "headers": headers, "client": (host, port)}, receive, send)

    async def _normalized(self, scope: Scope, receive: Any, send: Any) -> None:
        host, port = scope["client"]
        await self._app({**scope, "client": (normalize(host), port)}, receive, send)


class TooManyRequests(Exception):
    """One address has too many open requests."""


@dataclass
class _Gate:
    places: asyncio.Semaphore
    users: int = 0


class RequestLimit:
    """Limits the open requests and sockets of each address; on one event loop."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._gates: dict[str, _Gate] = {}

    @contextlib.asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """Wait for a place, as a page may send many requests at once. Raises TooManyRequests."""
        gate = self._gates.setdefault(address, _Gate(asyncio.Semaphore(self._max_open)))
        if gate.users >= 2 * self._max_open:
            raise TooManyRequests
        gate.users += 1
        try:
            try:
                async with asyncio.timeout(limits.REQUEST_WAIT_SECONDS):
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
