"""The response to one request: security headers, and exactly one answer if there is an error."""
from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from streamdream.errors import UsageError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio needs both
    "style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:", "media-src 'self' data: blob:",
    "font-src 'self' data:", "connect-src 'self' data: blob:", "worker-src 'self' blob:", "object-src 'none'",
    "base-uri 'self'", "form-action 'self'"))
HEADERS = ((b"content-security-policy", f"{POLICY}; frame-ancestors 'none'".encode()),
           (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"),
           (b"referrer-policy", b"same-origin"), (b"cross-origin-opener-policy", b"same-origin"),
           (b"cross-origin-resource-policy", b"same-origin"),
           (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=()"))
"""The security headers of a server that no page may show in a frame."""
ANCESTOR = re.compile(r"'self'|(https?://)?(\*\.)?[\w-]+(\.[\w-]+)*(:([0-9]{1,5}|\*))?", re.ASCII)
STARTS = ("http.response.start", "websocket.http.response.start")
CLOSED_RULES, CLOSED_ERROR = 1008, 1011


def parse_frame_ancestors(text: str) -> list[str]:
    """Sites with commas, as in ``https://blog.example, 'self'``. Raises UsageError."""
    sites = [part for part in text.replace(",", " ").split() if part]
    for site in sites:
        if not ANCESTOR.fullmatch(site):
            raise UsageError(f"--frame-ancestors {site}: it is no site, as in https://blog.example")
    return sites


def security_headers(frame_ancestors: str = "") -> Sequence[tuple[bytes, bytes]]:
    """Return the headers of every response. Pages of the sites in ``frame_ancestors`` may show it in a frame."""
    sites = parse_frame_ancestors(frame_ancestors)
    if not sites:
        return HEADERS
    headers = dict(HEADERS) | {b"content-security-policy": f"{POLICY}; frame-ancestors {' '.join(sites)}".encode()}
    del headers[b"x-frame-options"]  # it cannot list sites
    return tuple(headers.items())


class HttpError(Exception):
    """A refusal: an HTTP ``status``, one line of text, and more words for the log only."""

    def __init__(self, status: int, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.reason = status, text, reason


class Response:
    """Forwards the messages of the app, with the security headers. A status 500 of the app is not sent, so that
    ``answer`` can send a better response.
    """

    def __init__(self, scope: Scope, send: Send, headers: Sequence[tuple[bytes, bytes]] = HEADERS) -> None:
        self._scope, self._send, self._headers = scope, send, headers
        self.status = 0
        """The status that was sent; 0 until then."""
        self.refusal: HttpError | None = None
        """Set when the body of the request is refused; the messages of the app are dropped then."""
        self.cookies: Headers = []
        """Headers that are added to the first message."""
        self.failed = False
        """Whether the app sent status 500."""
        self._kind = ""
        self._finished = False

    @property
    def started(self) -> bool:
        return bool(self.status)

    async def send(self, message: Message) -> None:
        kind = message["type"]
        self.failed |= kind in STARTS and message["status"] == 500
        if not self.started and (self.refusal is not None or self.failed):
            return
        if kind == "websocket.close" and not self.started:  # uvicorn would answer without the headers
            await self.answer(404, "not found")
        else:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        kind = message["type"]
        if kind in STARTS:
            self.status = message["status"]
            own = {name.lower(): value for name, value in message.get("headers", ())}
            self._kind = own.get(b"content-type", b"").decode("latin-1")
            message["headers"] = [*message.get("headers", ()), *(pair for pair in self._headers if pair[0] not in own),
                                  *self.cookies]
            if self._scope["scheme"] in ("https", "wss"):
                message["headers"].append((b"strict-transport-security", b"max-age=31536000"))
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close" or (kind.endswith("response.body") and not message.get("more_body")):
            self._finished = True
        await self._send(message)

    async def answer(self, status: int, text: str, headers: Headers | None = None) -> None:
        """Send a whole response, also to a WebSocket that is not open yet."""
        prefix = "websocket.http" if self._scope["type"] == "websocket" else "http"
        body = text.encode("utf-8", "replace")
        own = headers or [(b"content-type", b"text/plain; charset=utf-8")]
        if status >= 400 and self._scope.get("method") not in ("GET", "HEAD"):
            own = [*own, (b"connection", b"close")]  # the rest of a body is not read
        await self._pass_on({"type": f"{prefix}.response.start", "status": status, "headers": [
            *own, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]})
        await self._pass_on({"type": f"{prefix}.response.body", "body": body})

    async def break_off(self, code: int = CLOSED_ERROR, reason: str = "") -> None:
        """End a response that has started: a socket by its close frame, an event stream by its last chunk. Any other
        body is left incomplete, so that the client notices.
        """
        if self._finished or not self.started:
            return
        if self._scope["type"] == "websocket":
            await self._pass_on({"type": "websocket.close", "code": code, "reason": reason})
        elif self._kind.startswith("text/event-stream"):
            await self._pass_on({"type": "http.response.body", "body": b""})
