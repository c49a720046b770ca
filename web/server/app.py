"""The app: Gradio's tabs, the live socket and a few routes of our own, on one FastAPI, behind one middleware.

    browser ──▶ uvicorn ──▶ AuthMiddleware ──▶ Draining ──▶ EventValidation ──▶ /live     live/websocket.py: JPEGs
                                                                            ├─▶ /healthz, /readyz  does it work
                                                                            ├─▶ routes of the tabs, pages/*.py
                                                                            └─▶ /         Gradio: the tabs themselves
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.datastructures import Headers
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.staticfiles import NotModifiedResponse

from streamdream import __version__
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

from ..auth import authentication
from ..auth.event_validation import EventValidation
from ..auth.middleware import AuthMiddleware
from ..core import assets, limits
from ..core.dream_health import READY
from ..core.response import Scope
from ..core.state import AppState
from ..jobs.service import JobService
from ..live.overflow import Overflow
from ..live.waiting_room import WaitingRoom
from ..live.websocket import LiveConnection
from ..pages import channels, looks
from . import blocks, metrics, startup
from .connection_limits import limit_connections
from .draining import Draining, ReplicaGate

log = logging.getLogger(__name__)
TICKS_A_SECOND = 10
"""How often uvicorn calls ``Server.on_tick``."""
IMMUTABLE = "public, max-age=31536000, immutable"
UNCOMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*", "application/octet-stream")
"""Files of visitors, and streams of events."""
VERSION = re.compile(rf"^[0-9a-f]{{12}}{re.escape(os.sep)}")
"""The first part of the path of an asset: the version of this server, or of one before an upgrade."""


class Assets(StaticFiles):
    """Our static files. Under ``assets.url`` a browser may keep them for good, as another content has another address;
    under any other it revalidates them at each use (by their ETag): also a page that was open before an upgrade.
    """

    def get_path(self, scope: Scope) -> str:
        return VERSION.sub("", super().get_path(scope))

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        if (name := Path(full_path).name) in assets.BUNDLES:
            response = Response(assets.script(name), media_type="text/javascript",
                                headers={"ETag": f'"{assets.version()}"'})
            if self.is_not_modified(response.headers, Headers(scope=scope)):
                response = NotModifiedResponse(response.headers)
        else:
            response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = IMMUTABLE if self._is_current(scope) else "no-cache"
        return response

    def _is_current(self, scope: Scope) -> bool:
        return super().get_path(scope).startswith(assets.version() + os.sep)


@dataclasses.dataclass(frozen=True)
class WebApp:
    """The whole app: ``asgi`` is what a server runs, the rest are its parts."""

    asgi: AuthMiddleware
    app_state: AppState
    waiting_room: WaitingRoom
    jobs_service: JobService
    blocks: Any
    draining: Draining
    overflow: Overflow


def create_app(settings: WebSettings, app_state: AppState | None = None) -> WebApp:
    """Build the whole app. ``app_state`` is made from the defaults when it is None; it is closed with the app."""
    Image.MAX_IMAGE_PIXELS = settings.upload_pixels  # Gradio opens pictures with Pillow
    app_state = app_state or AppState(settings, DreamSettings(), StreamSettings())
    pages = {name: importlib.import_module(f"..pages.{name}", __package__) for name in startup.TABS}
    tabs = startup.parse_tabs(settings.tabs)
    waiting_room, jobs_service = WaitingRoom(app_state), JobService(app_state)
    app_state.closing.append(jobs_service.close)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan(app_state, waiting_room))
    app.add_middleware(GZipMiddleware, compresslevel=6, exclude_content_types=UNCOMPRESSED)
    if "live" in tabs:
        app.add_api_websocket_route("/live", _live_route(app_state, waiting_room))
    app.add_api_route("/healthz", _health_route(app_state))
    app.add_api_route("/readyz", _ready_route(app_state))
    app.add_api_route("/manifest.json", _manifest)
    app.mount(f"/{assets.ROUTE}", Assets(directory=assets.ASSETS))
    for part in (*pages.values(), looks, channels):
        if hasattr(part, "routes") and (part is not pages["video"] or {"video", "picture"} & {*tabs}):  # uploads
            app.router.routes.extend(part.routes(jobs_service))
    built = blocks.build(jobs_service, {name: pages[name] for name in tabs})
    draining = Draining(app_state, waiting_room, jobs_service)
    validation = EventValidation(blocks.mount(app, built, settings), built.fns)
    overflow = Overflow(app_state, waiting_room, has_live="live" in tabs)
    asgi = AuthMiddleware(ReplicaGate(validation, draining, overflow), app_state)
    return WebApp(asgi, app_state, waiting_room, jobs_service, built, draining, overflow)


def _health_route(app_state: AppState) -> Any:
    async def health() -> JSONResponse:  # on the event loop: the threads for other routes may all be busy
        status = "failed" if app_state.health.first_error else "ok"
        return JSONResponse({"status": status, "version": __version__}, 200 if status == "ok" else 503)

    return health


def _ready_route(app_state: AppState) -> Any:
    async def ready() -> JSONResponse:
        status = app_state.readiness
        return JSONResponse({"status": status, "version": __version__}, 200 if status == READY else 503)

    return ready


def _manifest() -> FileResponse:
    """Describe the page for browsers that install it, in the place of Gradio's manifest."""
    return FileResponse(assets.ASSETS / "manifest.json", media_type="application/manifest+json")


def _live_route(app_state: AppState, waiting_room: WaitingRoom) -> Any:
    async def live(socket: WebSocket) -> None:
        await LiveConnection(app_state, waiting_room, socket).serve()

    return live


def _lifespan(app_state: AppState, waiting_room: WaitingRoom) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.get_running_loop().run_in_executor(None, app_state.warm_up)
        warming.add_done_callback(functools.partial(_on_warm_up_done, app_state))
        yield
        await asyncio.wait([warming], timeout=10)
        await waiting_room.close()
        await asyncio.to_thread(app_state.close)

    return lifespan


def _on_warm_up_done(app_state: AppState, warming: asyncio.Future[None]) -> None:
    """Record that the first dream is done. Report its error, which every visitor would get."""
    gc.enable()  # also when it has failed
    if warming.cancelled():
        return
    app_state.health.is_loaded = True
    with contextlib.suppress(RuntimeError):  # the server is stopping
        warming.get_loop().run_in_executor(None, looks.sheet)  # so that the first visitor does not wait for it
    if (error := warming.exception()) is not None:
        app_state.health.first_error = str(error) or type(error).__name__
        log.error("the first dream failed: %s", error)


class Server(uvicorn.Server):
    """Stops at a signal as uvicorn does, with ``--drain-seconds`` at a first SIGTERM after that time. It is left to the
    caller to end the process: uvicorn raises the signal again.
    """

    received: signal.Signals | None = None
    """The first signal."""

    def __init__(self, config: uvicorn.Config, app: WebApp) -> None:
        super().__init__(config)
        self._app, self._must_drain = app, False

    def drain(self) -> None:
        """Stop soon; see ``Draining``. Thread-safe, and safe in a signal handler."""
        self._must_drain = True

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if self._must_drain and not self.should_exit:
            if not self._app.app_state.draining:
                self._app.draining.begin()
            self.should_exit = self._app.draining.is_over
        if counter % TICKS_A_SECOND == 0:
            self._app.overflow.tick()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        is_first, self.received = self.received is None, self.received or signal.Signals(number)
        if is_first and number == signal.SIGTERM and self._app.app_state.web.drain_seconds:
            self.drain()
        else:
            self.handle_exit(number, frame)


def make_server(settings: WebSettings, app: WebApp) -> Server:
    """Make the server of ``create_app``, to be run with the socket of ``startup.open_port``."""
    http, websocket = limit_connections(settings.connections_per_address, app.app_state.counts, app.asgi.is_proxy)
    return Server(uvicorn.Config(
        app.asgi, http=http, ws=websocket, log_config=None, access_log=False,
        ws_max_size=limits.MAX_JPEG_BYTES, ws_per_message_deflate=False, ws_ping_interval=5, ws_ping_timeout=5,
        proxy_headers=False,  # AuthMiddleware does that
        limit_concurrency=limits.MAX_CONNECTIONS, timeout_graceful_shutdown=3, server_header=False,
        ssl_certfile=settings.ssl_certfile or None, ssl_keyfile=settings.ssl_keyfile or None), app)


def serve(settings: WebSettings, app_state: AppState, listening: socket.socket,
          ready: Callable[[str], None] = lambda link: None) -> signal.Signals | None:
    """Serve on ``listening`` until a signal comes, and return it. ``ready`` gets each link; ``settings`` are from
    ``startup.check``.

    Raises UsageError.
    """
    app = create_app(settings, app_state)
    with contextlib.ExitStack() as on_exit:
        if settings.metrics_port:
            on_exit.callback(metrics.serve(settings.metrics_port, app_state, app.waiting_room, app.jobs_service,
                                           settings.metrics_host))
        for link in startup.links(settings, listening):
            ready(link)
        if settings.share:
            for link in share(settings, listening.getsockname()[1]):
                ready(link)
        server = make_server(settings, app)
        server.run([listening])
    return server.received


def share(settings: WebSettings, port: int) -> list[str]:
    """Open Gradio's tunnel and return the public links. Raises UsageError when that fails."""
    from gradio import networking

    try:
        url = networking.setup_tunnel("127.0.0.1", port, authentication.new_token(), None, None)
    except Exception as error:  # its program cannot be fetched or started
        raise UsageError(f"--share found no tunnel: {error}") from None
    return startup.add_tokens(url, settings)
