"""ASGI middleware around every route: Host and Origin checks, login, allowed routes, body limits, security headers.

    proxy's headers ──▶ Host, Origin ──▶ token or login ──▶ allowed routes ──▶ bounds of the body ──▶ app ──▶ response
"""
from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import socket as sockets
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

from ..core import limits
from ..core.response import (
    CLOSED_RULES,
    App,
    Headers,
    HttpError,
    Message,
    Receive,
    Response,
    Scope,
    Send,
    security_headers,
)
from . import visitor_cookie
from .allowed_routes import is_allowed
from .authentication import COOKIE, Account, Authentication, LoginSession
from .login_page import login_page
from .login_queue import TooManyLogins
from .proxies import HOST, ROOT_PATH, RequestLimit, TooManyRequests, TrustedProxies
from .revocations import SESSION_SECONDS, Revocations, path_of

if TYPE_CHECKING:
    from ..core.state import AppState

UPLOAD_ROUTES = ("/uploads",)
"""Prefixes of routes whose bodies may be as large as an upload."""
HEALTH_ROUTES = ("/healthz", "/readyz")
"""Asked every few seconds; their 503 is no refusal."""
PUBLIC_ROUTES = (*HEALTH_ROUTES, "/login")
OWN_ROUTES = ("/live", "/uploads", "/examples/", "/results/", "/dreams", "/layers/", "/channels/", "/looks/", "/logout",
              *PUBLIC_ROUTES)
"""Our own routes: an unexpected exception is a server error. In Gradio's routes it is taken for an invalid request."""
INPUT_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError, OSError)
UNKNOWN = HttpError(400, "invalid request")
FOREIGN = "requests from other sites are refused"
MAX_SHOWN = 100
"""Characters of a header in the log."""
FAILED = HttpError(500, "internal error; see the server's log")
log = logging.getLogger(__name__)


class AuthMiddleware:
    """The middleware around ``app``."""

    def __init__(self, app: App, app_state: AppState) -> None:
        web = app_state.web
        self._app, self._app_state = app, app_state
        self._proxies = TrustedProxies(self._respond, web.trusted_proxies)
        self._limit = RequestLimit(web.connections_per_address)
        self._authentication = Authentication(web.token, web.auth, Revocations(path_of(web)), app_state.counts)
        self._root_path = web.root_path or urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).path.rstrip("/")
        self._security_headers = security_headers(web.frame_ancestors)
        self._in_frames = bool(web.frame_ancestors)
        self._names = {"localhost", sockets.gethostname().lower(),
                       *(name.strip().lower() for name in web.hosts.split(",") if name.strip())}
        self._max_upload_bytes = int(web.upload_mb * 1e6) + 1_000_000

    @property
    def requires_login(self) -> bool:
        """Whether a login is required."""
        return self._authentication.is_needed

    def is_proxy(self, address: str) -> bool:
        return self._proxies.trust(address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self._proxies(self._without_root_path(scope), receive, send)
            return
        watch = asyncio.create_task(self._authentication.watch())  # for as long as the server runs
        try:
            await self._app(scope, receive, _without_cancellation(send))
        finally:
            watch.cancel()

    def _without_root_path(self, scope: Scope) -> Scope:
        """Accept requests of proxies that leave the root path in front, as of those that remove it."""
        root, path = self._root_path, scope["path"]
        if not root or not path.startswith(root + "/"):
            return scope
        raw_path = scope.get("raw_path") or b""
        return {**scope, "path": path[len(root):], "raw_path": raw_path.removeprefix(root.encode())}

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send exactly one response, and log a line if it is an error."""
        response, error = Response(scope, send, self._security_headers), None
        try:
            async with self._place(scope):
                await self._handle(scope, receive, response)
        except HttpError as refusal:
            response.refusal = refusal
        except TooManyRequests:
            response.refusal = HttpError(429, "too many open requests from this address")
        except TooManyLogins:
            response.refusal = HttpError(429, "too many logins at once; wait a moment")
        except asyncio.CancelledError:  # the login was revoked, or the server is shutting down
            response.refusal = response.refusal or HttpError(503, "the server is shutting down")
        except Exception as caught:
            error = caught
        with contextlib.suppress(OSError, RuntimeError):  # the client has disconnected
            await self._finish(scope, response, error)

    async def _finish(self, scope: Scope, response: Response, error: Exception | None) -> None:
        """Answer a refused or failed request, and log it; also log refusals of the app itself."""
        own, started = scope["path"].startswith(OWN_ROUTES), response.started
        if not started and response.refusal is None and (error or response.failed):
            response.refusal = UNKNOWN if isinstance(error, INPUT_ERRORS) and not own else FAILED
        refusal = response.refusal
        if refusal and not started:
            await response.answer(refusal.status, refusal.text)
        elif refusal or error:
            await response.break_off(*((CLOSED_RULES, refusal.text) if refusal else ()))
        elif response.status < 400 or scope["path"] in HEALTH_ROUTES:
            return
        if response.status >= 400:
            self._app_state.counts[f"refused {response.status}"] += 1
        text = refusal.text if refusal else "" if error else HTTPStatus(response.status).phrase.lower()
        words = f"{type(error).__name__}: {error}"[:300] if error else refusal.reason if refusal else ""
        level = logging.ERROR if refusal is FAILED or (own and error and started) else logging.INFO
        what = "failed" if level == logging.ERROR else "broken off" if started and (refusal or error) else "refused"
        log.log(level, "%s: %s", what, " – ".join(filter(None, (text, words))), extra={"facts": {
            "status": response.status, "path": scope["path"][:100], "address": scope["client"][0]}})
        if error:
            log.debug("traceback", exc_info=error)

    def _place(self, scope: Scope) -> contextlib.AbstractAsyncContextManager[None]:
        """Count the request for the visitor behind a proxy; a proxy itself has no limit."""
        address = scope["client"][0]
        return contextlib.nullcontext() if self._proxies.trust(address) else self._limit.place(address)

    async def _handle(self, scope: Scope, receive: Receive, response: Response) -> None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        self._check_host_and_origin(scope, headers)
        _check_path(scope["path"])
        receive = self._limit_body(scope, headers, receive, response)
        if self.requires_login and scope["type"] == "http" and scope["path"] in ("/login", "/logout"):
            await (self._login if scope["path"] == "/login" else self._logout)(scope, headers, receive, response)
            return
        identity = None
        if self.requires_login and scope["path"] not in PUBLIC_ROUTES:
            if await self._follow_link(scope, headers, response):
                return
            identity = await self._authentication.identify(scope["headers"], scope["client"][0])
            if identity is None:
                await self._challenge(scope, headers, response)
                return
        if not is_allowed(scope):
            raise HttpError(404, "not found")
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/":
            visitor = visitor_cookie.read(headers.get("cookie", "")) or visitor_cookie.new_value()
            response.cookies.append(self._cookie(scope, headers, visitor_cookie.COOKIE, visitor,
                                                 visitor_cookie.KEPT_SECONDS))
        with self._cancel_on_revocation(identity, response):
            await self._app(scope, receive, response.send)

    def _cancel_on_revocation(self, identity: Account | LoginSession | None, response: Response
                              ) -> contextlib.AbstractContextManager[None]:
        """Within it, cancel the request if ``identity`` is revoked."""
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            response.refusal = HttpError(401, "log in again")
            task.cancel()

        return self._authentication.keep_open(identity, end) if identity else contextlib.nullcontext()

    # --- origin -------------------------------------------------------------------------------------------------------

    def _check_host_and_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Refuse requests that a page of another site makes in its visitors' browsers, also under a name that it points
        at this machine (DNS rebinding). Raises HttpError.
        """
        host = headers.get("host", "")
        if host and not HOST.fullmatch(host):
            raise HttpError(400, "invalid Host header")
        if not (self._is_allowed_host(host) or self.requires_login):
            raise HttpError(403, "unknown host name; --hosts adds one", f"the request is for Host {host[:MAX_SHOWN]}")
        origin, changes = headers.get("origin"), scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if scope["type"] == "websocket" and origin is None:
            raise HttpError(403, "a WebSocket needs an Origin header")
        if origin is not None and changes:
            self._check_origin(origin, host, headers.get("x-forwarded-host", ""))
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise HttpError(403, FOREIGN)

    def _check_origin(self, origin: str, *hosts: str) -> None:
        _, separator, named = origin.lower().partition("://")
        if separator and not HOST.fullmatch(named):
            raise HttpError(400, "invalid Origin header")
        if named not in {host.lower() for host in hosts} - {""} and (
                named.partition(":")[0] not in self._names - {"localhost"}):
            reason = f"Origin {origin[:MAX_SHOWN]} is not Host {hosts[0][:MAX_SHOWN]}"
            raise HttpError(403, FOREIGN, f"{reason}; a proxy has to pass Host on, or --hosts names what visitors see")

    def _is_allowed_host(self, host: str) -> bool:
        parts = HOST.fullmatch(host)
        name = parts[1].strip("[]").lower() if parts else ""
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _root(self, scope: Scope, headers: Mapping[str, str]) -> str:
        """Return what a proxy has removed from the beginning of the path: "", or as in ``/dream``."""
        root_path = headers.get("x-forwarded-prefix", "").rstrip("/") or scope.get("root_path", "") or self._root_path
        return root_path if ROOT_PATH.fullmatch(root_path) else ""

    # --- login --------------------------------------------------------------------------------------------------------

    async def _follow_link(self, scope: Scope, headers: Mapping[str, str], response: Response) -> bool:
        """Log in by a link with the token, and redirect to the same page without it. Return whether it was one."""
        query = scope["query_string"].decode("latin-1")
        if scope["type"] != "http" or scope["method"] != "GET" or "token=" not in query:
            return False
        fields = parse_qsl(query, keep_blank_values=True)
        token = next((value for name, value in fields if name == "token"), "")
        account = self._authentication.find_token(token)
        if account is None:
            return False
        others = urlencode([(name, value) for name, value in fields if name != "token"])
        # quoted, and with one slash in front, so that no browser takes it for another host
        path = self._root(scope, headers) + "/" + quote(scope["path"].lstrip("/"), safe="/:@!$&'()*+,;=~")
        await self._let_in(scope, headers, response, account, path + ("?" + others if others else ""))
        return True

    async def _challenge(self, scope: Scope, headers: Mapping[str, str], response: Response) -> None:
        """Answer with the login page where HTML is accepted. Raises HttpError elsewhere."""
        if scope["type"] != "http" or scope["method"] != "GET" or "text/html" not in headers.get("accept", ""):
            raise HttpError(401, "log in first")
        await self._answer_page(scope, headers, response, wrong=False)

    async def _answer_page(self, scope: Scope, headers: Mapping[str, str], response: Response, wrong: bool) -> None:
        text = login_page(self._authentication.has_users, wrong, self._root(scope, headers))
        await response.answer(401, text, [(b"content-type", b"text/html; charset=utf-8")])

    async def _login(self, scope: Scope, headers: Mapping[str, str], receive: Receive, response: Response) -> None:
        if scope["method"] != "POST":
            await response.answer(303, "", [(b"location", self._root(scope, headers).encode() + b"/")])
            return
        body = b""
        while len(body) < limits.MAX_LOGIN_BYTES:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        form = parse_qs(body[:limits.MAX_LOGIN_BYTES].decode("utf-8", "replace"))
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        account = self._authentication.find_token(password) or (
            await self._authentication.check_password(user, password, scope["client"][0]))
        if account is None:
            if not self._authentication.has_users:  # else check_password has logged it
                log.info("a login failed", extra={"facts": {"address": scope["client"][0]}})
                self._app_state.counts["wrong tokens"] += 1
            await self._answer_page(scope, headers, response, wrong=True)
        else:
            await self._let_in(scope, headers, response, account, self._root(scope, headers) + "/")

    async def _let_in(self, scope: Scope, headers: Mapping[str, str], response: Response, account: Account,
                      to: str) -> None:
        log.info("login", extra={"facts": {"name": account.name, "address": scope["client"][0]}})
        cookie = self._cookie(scope, headers, COOKIE, self._authentication.begin_session(account).cookie,
                              SESSION_SECONDS)
        await response.answer(303, "", [(b"location", to.encode()), cookie])

    async def _logout(self, scope: Scope, headers: Mapping[str, str], receive: Receive, response: Response) -> None:
        """End this session, or with ``POST /logout?all=1`` all sessions of its account. Other sites' pages end none."""
        session = self._authentication.find_session(scope["headers"])
        asked_here = scope["method"] == "POST" or (
            scope["method"] == "GET" and headers.get("sec-fetch-site", "none") in ("none", "same-origin"))
        if session is not None and asked_here:
            fields = parse_qs(scope["query_string"].decode("latin-1"))
            everywhere = scope["method"] == "POST" and fields.get("all") == ["1"]
            await asyncio.to_thread(self._authentication.end_session, session, everywhere)
            self._authentication.close_revoked()
            log.info("logout", extra={"facts": {
                "name": session.account.name, "everywhere": everywhere, "address": scope["client"][0]}})
        answer: Headers = [(b"location", self._root(scope, headers).encode() + b"/")]
        if asked_here:  # whoever logs in next in this browser does not see this visitor's dreams
            answer += [self._cookie(scope, headers, name, "", 0) for name in (COOKIE, visitor_cookie.COOKIE)]
        await response.answer(303, "", answer)

    def _cookie(self, scope: Scope, headers: Mapping[str, str], name: str, value: str, seconds: int
                ) -> tuple[bytes, bytes]:
        secure = "; Secure" if scope["scheme"] in ("https", "wss") else ""
        path = self._root(scope, headers) or "/"
        # in a frame of another site a browser sends the cookie only if it says so, over https
        same_site = "None; Partitioned" if self._in_frames and secure else "Lax"
        return b"set-cookie", (f"{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}"
                               f"{secure}").encode()

    # --- body ---------------------------------------------------------------------------------------------------------

    def _limit_body(self, scope: Scope, headers: Mapping[str, str], receive: Receive, response: Response) -> Receive:
        """Return ``receive`` with limits of size and time. A larger body is refused, whatever the app answers."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return receive
        is_upload = scope["path"].startswith(UPLOAD_ROUTES)
        max_bytes = self._max_upload_bytes if is_upload else limits.MAX_BODY_BYTES
        stated_bytes = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,15}", stated_bytes) or int(stated_bytes) > max_bytes:
            raise HttpError(413, "the request is too large")
        received_bytes, is_complete = 0, False
        loop = asyncio.get_running_loop()
        total_seconds, silence_seconds = limits.BODY_SECONDS, limits.BODY_TIMEOUT_SECONDS
        if is_upload:  # uploads.py has a shorter timeout, with a message for the page
            total_seconds, silence_seconds = limits.UPLOAD_SECONDS + 60, 2 * silence_seconds
        until_seconds = loop.time() + total_seconds

        async def bounded() -> Message:
            nonlocal received_bytes, is_complete
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), min(silence_seconds, until_seconds - loop.time()))
            except TimeoutError:
                response.refusal = HttpError(408, "timeout of the request body")
                raise response.refusal from None
            received_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received_bytes > max_bytes:
                response.refusal = HttpError(413, "the request is too large")
                raise response.refusal
            return message

        return bounded


def _without_cancellation(send: Send) -> Send:
    """For the lifespan: leave out that it failed when it was cancelled, as by a second Ctrl-C, else that is logged."""
    async def send_unless_cancelled(message: Message) -> None:
        task = asyncio.current_task()
        if not (message["type"] == "lifespan.shutdown.failed" and task is not None and task.cancelling()):
            await send(message)

    return send_unless_cancelled


def _check_path(path: str) -> None:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path) or any(
            len(part.encode("utf-8", "replace")) > limits.MAX_PATH_PART_BYTES for part in path.split("/")):
        raise HttpError(404, "not found")

