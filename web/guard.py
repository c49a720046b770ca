"""What stands before every route, Gradio's and the socket included: who may in, from where, and how much at a time.

    Host, Origin ──▶ token or login ──▶ allowed routes ──▶ size and patience of the body ──▶ app ──▶ security headers
"""
from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import secrets
import socket as sockets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from . import passwords
from .allowed_routes import is_allowed
from .door import page

if TYPE_CHECKING:
    from .studio import Studio

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "streamdream"
COOKIE_SECONDS = 7 * 24 * 3600
SILENCE_SECONDS = 15.0
"""A body of which nothing comes for so long is given up."""
SMALL_BODY = 8_000_000
"""Bytes of any body that is no upload."""
UPLOADS = ("/uploads",)
"""What begins so may send as much as an upload."""
OPEN = ("/healthz", "/login")
LOGIN_PAUSE_SECONDS = 1.0
"""After a wrong password; only one is looked at at a time, so this is all who guess get."""
POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's page needs both
    "style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:", "media-src 'self' data: blob:",
    "font-src 'self' data:", "connect-src 'self' data: blob:", "worker-src 'self' blob:", "object-src 'none'",
    "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'"))
HEADERS = ((b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
           (b"x-frame-options", b"DENY"), (b"referrer-policy", b"same-origin"),
           (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
           (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=()"))
log = logging.getLogger(__name__)


class Refused(Exception):
    """``status`` and a line for whoever is refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Guard:
    """An ASGI app around another one."""

    def __init__(self, app: App, studio: Studio) -> None:
        web = studio.web
        self._app, self._studio = app, studio
        self._token = web.token
        self._users = dict(part.strip().partition(":")[::2] for part in web.auth.split(",") if part.strip())
        self._key = hmac.digest(b"streamdream cookie", (web.auth + "\n" + web.token).encode(), "sha256")
        self._names = {"localhost", sockets.gethostname().lower(),
                       *(name.strip().lower() for name in web.hosts.split(",") if name.strip())}
        self._guessing = asyncio.Semaphore(1)
        self._largest_upload = int(web.upload_mb * 1e6) + 1_000_000

    @property
    def closed(self) -> bool:
        """Whether there is anything to show before one may in."""
        return bool(self._token or self._users)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            self._check_place(scope, headers)
            if scope["type"] == "http" and scope["path"] == "/login" and self.closed:
                await self._login(scope, headers, self._bounded(scope, headers, receive), self._dressed(scope, send))
                return
            if self.closed and scope["path"] not in OPEN and not await self._is_known(headers):
                await self._show_door(scope, headers, receive, send)
                return
            if not is_allowed(scope):
                raise Refused(404, "there is nothing here")
            await self._app(scope, self._bounded(scope, headers, receive), self._dressed(scope, send))
        except Refused as refusal:
            self._studio.counts[f"refused {refusal.status}"] += 1
            log.info("refused: %s", refusal.text, extra={"facts": {
                "status": refusal.status, "path": scope["path"][:100], "address": (scope["client"] or ("",))[0]}})
            await _answer(scope, self._dressed(scope, send), refusal.status, refusal.text)

    # --- from where ---------------------------------------------------------------------------------------------------

    def _check_place(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """A page of somebody else may send its visitors' browsers here; neither it nor a name that it has pointed at
        this machine (DNS rebinding) gets anything.
        """
        host = headers.get("host", "")
        if not (self._is_ours(host) or self.closed):
            raise Refused(403, "this name is not known here; --hosts adds one")
        origin, changes = headers.get("origin"), scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if scope["type"] == "websocket" and origin is None:
            raise Refused(403, "a socket needs an Origin")
        if origin is not None and changes:
            named = urlsplit(origin).netloc.lower() if "://" in origin else ""
            if named != host.lower() and named.partition(":")[0] not in self._names - {"localhost"}:
                raise Refused(403, "another page asked for this")
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "another page asked for this")

    def _is_ours(self, host: str) -> bool:
        name = urlsplit("//" + host).hostname or ""
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    # --- who ----------------------------------------------------------------------------------------------------------

    async def _is_known(self, headers: Mapping[str, str]) -> bool:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(secret)
        if kind.lower() == "basic":
            try:
                user, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return False
            return await self._is_user(user, password)
        return self._is_cookie(headers)

    def _is_token(self, secret: str) -> bool:
        return bool(self._token) and hmac.compare_digest(secret.encode(), self._token.encode())

    async def _is_user(self, user: str, password: str) -> bool:
        """One at a time, in a thread: it is slow, so that guessing is."""
        async with self._guessing:
            kept = self._users.get(user, passwords.NOBODY)
            good = await asyncio.to_thread(passwords.matches, password[:1000], kept)
            if not good:
                self._studio.counts["wrong passwords"] += 1
                await asyncio.sleep(LOGIN_PAUSE_SECONDS)
        return good and user in self._users

    def _is_cookie(self, headers: Mapping[str, str]) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except Exception:  # whatever a parser makes of hostile text
            return False
        if COOKIE not in cookies:
            return False
        until, _, sign = cookies[COOKIE].value.partition(".")
        return (until.isdigit() and len(until) < 16 and int(until) > time.time()
                and hmac.compare_digest(sign, self._sign(until)))

    def _sign(self, until: str) -> str:
        return hmac.new(self._key, until.encode(), "sha256").hexdigest()

    def _cookie(self, scope: Scope) -> bytes:
        until = str(int(time.time()) + COOKIE_SECONDS)
        secure = "; Secure" if scope["scheme"] in ("https", "wss") else ""
        value = f"{COOKIE}={until}.{self._sign(until)}"
        return f"{value}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}".encode()

    async def _show_door(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        """A page to log in for whoever looks, a refusal for what runs; the link with the token opens."""
        if scope["type"] == "http" and scope["method"] == "GET":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and self._is_token(given):
                await _answer(scope, self._dressed(scope, send), 303, "", [
                    (b"location", b"/" + scope["path"].lstrip("/").encode()), (b"set-cookie", self._cookie(scope))])
                return
            if "text/html" in headers.get("accept", ""):
                await _answer(scope, self._dressed(scope, send), 401, page(bool(self._users), False),
                              [(b"content-type", b"text/html; charset=utf-8")])
                return
        raise Refused(401, "log in first")

    async def _login(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _answer(scope, send, 303, "", [(b"location", b"/")])
            return
        body = b""
        while len(body) < 10_000:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        form = parse_qs(body.decode("utf-8", "replace"))
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        if self._is_token(password) or (self._users and await self._is_user(user, password)):
            await _answer(scope, send, 303, "", [(b"location", b"/"), (b"set-cookie", self._cookie(scope))])
        else:
            await _answer(scope, send, 401, page(bool(self._users), True),
                          [(b"content-type", b"text/html; charset=utf-8")])

    # --- how much, and what goes out ----------------------------------------------------------------------------------

    def _bounded(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
        """``receive``, which gives up on a body that is too large or does not come."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return receive
        most = self._largest_upload if scope["path"].startswith(UPLOADS) else SMALL_BODY
        stated = headers.get("content-length", "0")
        if not stated.isdigit() or int(stated) > most:
            raise Refused(413, "this is too large")
        come, whole = 0, False

        async def bounded() -> Message:
            nonlocal come, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), SILENCE_SECONDS)
            except TimeoutError:
                raise Refused(408, "nothing came for too long") from None
            come += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if come > most:
                raise Refused(413, "this is too large")
            return message

        return bounded

    def _dressed(self, scope: Scope, send: Send) -> Send:
        """``send``, which adds the security headers."""
        async def dressed(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [*message.get("headers", ()), *(pair for pair in HEADERS if pair[0] not in own)]
                if scope["scheme"] == "https":
                    message["headers"].append((b"strict-transport-security", b"max-age=31536000"))
            await send(message)

        return dressed


async def _answer(scope: Scope, send: Send, status: int, text: str,
                  headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """A whole response; to a socket that is not open yet, the same."""
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    body = text.encode()
    own = headers or [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": f"{kind}.response.start", "status": status,
                "headers": [*own, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]})
    await send({"type": f"{kind}.response.body", "body": body})


def new_token() -> str:
    return secrets.token_urlsafe(24)
