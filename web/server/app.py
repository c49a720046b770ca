"""The app: Gradio's tabs, the live socket and a few routes of our own, on one FastAPI, behind one middleware.

    browser ──▶ uvicorn ──▶ AuthMiddleware ──▶ EventValidation ──▶ /live     live/websocket.py: JPEG up, JPEG down
                                                               ├─▶ /healthz, /readyz  does it work
                                                               ├─▶ routes of the tabs, pages/*.py
                                                               └─▶ /         Gradio: the tabs themselves
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from streamdream import __version__
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

from ..auth import authentication
from ..auth.event_validation import EventValidation
from ..auth.middleware import AuthMiddleware
from ..core import assets, limits, quick_gradio
from ..core.dream_health import READY
from ..core.response import Scope
from ..core.state import AppState
from ..jobs.service import JobService
from ..live.waiting_room import WaitingRoom
from ..live.websocket import LiveConnection
from ..pages import channels, heading, looks
from . import metrics, startup
from .connection_limits import limit_connections

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no telemetry; before gradio is loaded
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))  # local counts load pandas for each event

with quick_gradio.without_stubs():
    import gradio as gr
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from gradio import routes
from jinja2.ext import Extension
from PIL import Image

if TYPE_CHECKING:
    from ..pages.settings_panel import SettingsPanel

log = logging.getLogger(__name__)
IMMUTABLE = "public, max-age=31536000, immutable"
VERSION = re.compile(rf"^[0-9a-f]{{12}}{re.escape(os.sep)}")
"""The first part of the path of an asset: the version of this server, or of one before an upgrade."""
PREVIEW_TAGS = re.compile(r'\s*<meta\s+(?:property|name)="(?:og|twitter):[^>]*>')
DESCRIPTION = "Deep Dream on your camera, videos and pictures"
PREVIEW = ('<meta property="og:title" content="streamdream"><meta property="og:type" content="website">'
           f'<meta property="og:description" content="{DESCRIPTION}">')
HEAD = (f'<meta name="description" content="{DESCRIPTION}">'
        f'<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">'
        + "".join(f'<link rel="stylesheet" href="{assets.url(name + ".css")}">' for name in ("app", "live", "looks")))


class Assets(StaticFiles):
    """Our static files. Under ``assets.url`` a browser may keep them for good, as another content has another address;
    under any other it revalidates them at each use (by their ETag): also a page that was open before an upgrade.
    """

    def get_path(self, scope: Scope) -> str:
        return VERSION.sub("", super().get_path(scope))

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = IMMUTABLE if self._is_current(scope) else "no-cache"
        return response

    def _is_current(self, scope: Scope) -> bool:
        return super().get_path(scope).startswith(assets.version() + os.sep)


class Preview(Extension):
    """Makes Gradio's template name this app, not Gradio, to programs that preview a link. They run no script, and so do
    not see ``HEAD``, which a script adds.
    """

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return PREVIEW_TAGS.sub("", source).replace("</head>", PREVIEW + "</head>", 1)


@dataclasses.dataclass(frozen=True)
class WebApp:
    """The whole app: ``asgi`` is what a server runs, the rest are its parts."""

    asgi: AuthMiddleware
    app_state: AppState
    waiting_room: WaitingRoom
    jobs_service: JobService
    blocks: Any


def create_app(settings: WebSettings, app_state: AppState | None = None) -> WebApp:
    """Build the whole app. ``app_state`` is made from the defaults when it is None; it is closed with the app."""
    Image.MAX_IMAGE_PIXELS = settings.upload_pixels  # Gradio opens pictures with Pillow
    app_state = app_state or AppState(settings, DreamSettings(), StreamSettings())
    pages = {name: importlib.import_module(f"..pages.{name}", __package__) for name in startup.TABS}
    tabs = startup.parse_tabs(settings.tabs)
    waiting_room, jobs_service = WaitingRoom(app_state), JobService(app_state)
    app_state.closing.append(jobs_service.close)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan(app_state, waiting_room))
    if "live" in tabs:
        app.add_api_websocket_route("/live", _live_route(app_state, waiting_room))
    app.add_api_route("/healthz", _health_route(app_state))
    app.add_api_route("/readyz", _ready_route(app_state))
    app.add_api_route("/manifest.json", _manifest)
    app.mount(f"/{assets.ROUTE}", Assets(directory=assets.ASSETS))
    for part in (*pages.values(), looks, channels):
        if hasattr(part, "routes") and (part is not pages["video"] or {"video", "picture"} & {*tabs}):  # uploads
            app.router.routes.extend(part.routes(jobs_service))
    _set_gradio_folder(app_state.folder / "gradio")
    blocks = _blocks(jobs_service, {name: pages[name] for name in tabs})
    asgi = AuthMiddleware(EventValidation(_mount(app, blocks, settings), blocks.fns), app_state)
    return WebApp(asgi, app_state, waiting_room, jobs_service, blocks)


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
    if warming.cancelled():
        return
    app_state.health.is_loaded = True
    if (error := warming.exception()) is not None:
        app_state.health.first_error = str(error) or type(error).__name__
        log.error("the first dream failed: %s", error)


def _blocks(jobs_service: JobService, pages: dict[str, Any]) -> Any:
    web = jobs_service.app_state.web
    with gr.Blocks(title="streamdream", analytics_enabled=False, fill_width=True, delete_cache=(60, 600)) as blocks:
        template = heading.template(web, startup.read_terms(web.terms))
        gr.HTML(html_template=template, js_on_load=heading.SCRIPT, apply_default_css=False, elem_id="heading")
        panels: list[SettingsPanel] = []  # of the tabs so far
        with gr.Tabs():
            tabs = {name: gr.Tab(name.title(), id=name, elem_id=f"tab-{name}") for name in pages}
            for name in sorted(tabs, key="layers".__eq__):  # the tab Layers sets the panels of all others
                with tabs[name]:
                    pages[name].build(jobs_service, panels)
    blocks.process_api = _report_errors(blocks.process_api)
    blocks.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    # Gradio checks whether an event may name a file (``processing_utils._check_allowed``) only after ``launch()``,
    # which ``mount_gradio_app`` never calls: without this line an event may name any file of the server.
    blocks.has_launched = True
    return blocks


def _set_gradio_folder(folder: Path) -> None:
    """Make Gradio write its files there: private, and removed with the server's folder. Its default is a folder that
    all users of the machine share. A component keeps the folder that is set when it is made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def _report_errors(process: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Report data that no event can take in one line; Gradio prints a traceback. Errors of the events' functions are
    reported by ``settings_panel.report_errors``.
    """
    @functools.wraps(process)
    async def process_api(*arguments: Any, **named: Any) -> Any:
        try:
            return await process(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            log.info("an event was refused: %s", f"{type(error).__name__}: {error}".partition("\n")[0][:300])
            log.debug("traceback", exc_info=error)
            raise gr.Error("The request was invalid. Reload the page.", print_exception=False) from None

    return process_api


def _mount(app: FastAPI, blocks: Any, settings: WebSettings) -> FastAPI:
    routes.templates.env.add_extension(Preview)
    mounted: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", root_path=settings.root_path or None, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, show_error=True,
        max_file_size=int(settings.upload_mb * 1e6), allowed_paths=[], theme=gr.themes.Base(), head=HEAD,
        favicon_path=str(assets.ASSETS / "icon.png"))
    return mounted


class Server(uvicorn.Server):
    """Stops at a signal as uvicorn does, but leaves it to the caller to end the process: uvicorn raises it again."""

    received: signal.Signals | None = None
    """The first signal."""

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
        self.received = self.received or signal.Signals(number)
        self.handle_exit(number, frame)


def make_server(settings: WebSettings, app: WebApp) -> Server:
    """Make the server of ``create_app``, to be run with the socket of ``startup.open_port``."""
    http, websocket = limit_connections(settings.connections_per_address, app.app_state.counts, app.asgi.is_proxy)
    return Server(uvicorn.Config(
        app.asgi, http=http, ws=websocket, log_config=None, access_log=False,
        ws_max_size=limits.MAX_JPEG_BYTES, ws_per_message_deflate=False, ws_ping_interval=5, ws_ping_timeout=5,
        proxy_headers=False,  # AuthMiddleware does that
        limit_concurrency=limits.MAX_CONNECTIONS, timeout_graceful_shutdown=3, server_header=False,
        ssl_certfile=settings.ssl_certfile or None, ssl_keyfile=settings.ssl_keyfile or None))


def serve(settings: WebSettings, app_state: AppState, listening: socket.socket,
          ready: Callable[[str], None] = lambda link: None) -> signal.Signals | None:
    """Serve on ``listening`` until a signal comes, and return it. ``ready`` gets each link; ``settings`` are from
    ``startup.check``.

    Raises UsageError.
    """
    app = create_app(settings, app_state)
    with contextlib.ExitStack() as on_exit:
        if settings.metrics_port:
            on_exit.callback(metrics.serve(settings.metrics_port, app_state, app.waiting_room, app.jobs_service))
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
