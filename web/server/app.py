"""The app: Gradio's tabs, the live socket and a few routes of our own, on one FastAPI, behind one guard.

    browser ──▶ uvicorn ──▶ guard ──▶ event validation ──▶ /live        live.py       a WebSocket: JPEG up, JPEG down
                                                       ├─▶ /healthz     is it alive
                                                       ├─▶ routes(studio) of the tabs, pages/*.py
                                                       └─▶ /            Gradio: the tabs themselves
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from streamdream import __version__
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

from ..auth import authentication, middleware, proxies
from ..auth.event_validation import EventValidation
from ..core.state import AppState
from ..live.session import MAX_JPEG_BYTES
from ..live.waiting_room import WaitingRoom, is_loopback
from ..live.websocket import LiveConnection
from . import logs, metrics
from .connection_limits import limit_connections

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is told to anybody; before gradio is loaded
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))  # nor counted, which loads pandas for each event

import gradio as gr
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image

if TYPE_CHECKING:
    from ..pages.settings_panel import SettingsPanel

TABS = {"Live": "live", "Video": "video", "Picture": "picture", "Layers": "layers"}
"""Title -> the file of ``pages``."""
ASSETS = Path(__file__).parents[1] / "assets"
log = logging.getLogger(__name__)
MAX_CONNECTIONS = 1024
"""Connections of all addresses together."""
ASSETS_PATH = "/streamdream"
HEAD = '<link rel="stylesheet" href="streamdream/app.css"><link rel="stylesheet" href="streamdream/live.css">'
HEADING = """<header class="sd-head"><span class="sd-mark" aria-hidden="true"></span><b>streamdream</b>
LOGOUT<button type="button" class="sd-theme" aria-label="Dark or light" title="Dark or light">◐</button></header>"""
LOGOUT = '<form class="sd-logout" method="post" action="logout"><button>Log out</button></form>'
THEME = """
const kept = localStorage.getItem("streamdream-theme");
if (kept && !location.search.includes("__theme")) document.body.classList.toggle("dark", kept === "dark");
element.querySelector(".sd-theme").addEventListener("click", () =>
  localStorage.setItem("streamdream-theme", document.body.classList.toggle("dark") ? "dark" : "light"));
"""


class GuardedApp(middleware.AuthMiddleware):
    """The whole app."""

    app_state: AppState
    waiting_room: WaitingRoom
    blocks: Any


def create_app(settings: WebSettings, app_state: AppState | None = None) -> GuardedApp:
    """The whole app. ``app_state`` is made from the defaults when there is none; it is closed with the app."""
    Image.MAX_IMAGE_PIXELS = settings.upload_pixels  # Gradio opens pictures with Pillow
    app_state = app_state or AppState(settings, DreamSettings(), StreamSettings())
    pages = {title: importlib.import_module(f"..pages.{name}", __package__) for title, name in TABS.items()}
    waiting_room = WaitingRoom(app_state)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan(app_state, waiting_room))
    app.add_api_websocket_route("/live", _live_route(app_state, waiting_room))
    app.add_api_route("/healthz", _health)
    app.mount(ASSETS_PATH, StaticFiles(directory=ASSETS))
    for page in pages.values():
        if hasattr(page, "routes"):
            app.router.routes.extend(page.routes(app_state))
    _set_gradio_folder(app_state.folder / "gradio")
    blocks = _blocks(app_state, pages)
    guarded = GuardedApp(EventValidation(_mount(app, blocks, settings), blocks.fns), app_state)
    guarded.app_state, guarded.waiting_room, guarded.blocks = app_state, waiting_room, blocks
    return guarded


async def _health() -> JSONResponse:
    """On the event loop itself: the threads for other routes may all be busy."""
    return JSONResponse({"status": "ok", "version": __version__})


def _live_route(app_state: AppState, waiting_room: WaitingRoom) -> Any:
    async def live(socket: WebSocket) -> None:
        await LiveConnection(app_state, waiting_room, socket).serve()

    return live


def _lifespan(app_state: AppState, waiting_room: WaitingRoom) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.get_running_loop().run_in_executor(None, app_state.warm_up)
        warming.add_done_callback(_log_warm_up_error)
        yield
        await asyncio.wait([warming], timeout=10)
        await waiting_room.close()
        await asyncio.to_thread(app_state.close)

    return lifespan


def _log_warm_up_error(warming: asyncio.Future[None]) -> None:
    """Whoever comes meets the same error; here it is said as soon as it is known."""
    if not warming.cancelled() and (error := warming.exception()) is not None:
        log.error("the first dream failed: %s", error)


def _blocks(app_state: AppState, pages: dict[str, Any]) -> Any:
    with gr.Blocks(title="streamdream", analytics_enabled=False, fill_width=True, delete_cache=(60, 600)) as blocks:
        heading = HEADING.replace("LOGOUT", LOGOUT if app_state.web.auth or app_state.web.token else "")
        gr.HTML(html_template=heading, js_on_load=THEME, apply_default_css=False, elem_id="heading")
        panels: list[SettingsPanel] = []  # of the tabs so far; the tab Layers sets them
        with gr.Tabs():
            for title, page in pages.items():
                with gr.Tab(title, id=title.lower(), elem_id=f"tab-{title.lower()}"):
                    page.build(app_state, panels)
    blocks.process_api = _tell_errors(blocks.process_api)
    blocks.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    # Gradio looks whether a visitor may name a file (``processing_utils._check_allowed``) only after ``launch()``, and
    # ``mount_gradio_app`` never calls that: without this line an event may name any file of the server.
    blocks.has_launched = True
    return blocks


def _set_gradio_folder(folder: Path) -> None:
    """Files that Gradio writes go there: private, and removed with the studio's folder. Its own choice is a folder that
    all users of the machine share. A component keeps the folder that is set when it is made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def _tell_errors(process: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Of data that no event can take, for which Gradio prints a traceback; ``panel.told`` tells those of functions."""
    @functools.wraps(process)
    async def process_api(*arguments: Any, **named: Any) -> Any:
        try:
            return await process(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            log.info("an event was refused: %s", f"{type(error).__name__}: {error}".partition("\n")[0][:300])
            log.debug("its traceback", exc_info=error)
            raise gr.Error("This was not understood; load the page again.", print_exception=False) from None

    return process_api


def _mount(app: FastAPI, blocks: Any, settings: WebSettings) -> FastAPI:
    mounted: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
        mcp_server=False, show_error=True, max_file_size=int(settings.upload_mb * 1e6), allowed_paths=[],
        theme=gr.themes.Base(), head=HEAD)
    return mounted


def check(settings: WebSettings) -> WebSettings:
    """The settings as they will be used. Raises UsageError for those that would leave the door open."""
    tokens = authentication.parse_tokens(settings.token or ("new" if settings.share else ""))
    authentication.check_names(tokens, authentication.parse_users(settings.auth))
    token = ",".join(f"{name}:{secret}" for name, secret in tokens.items())
    proxies.parse_networks(settings.trusted_proxies)
    if not (is_loopback(settings.host) or settings.auth or token):
        raise UsageError(f"--host {settings.host} opens the app to others; say who may in: --token new, or --auth "
                         "user:hash")
    if bool(settings.ssl_certfile) is not bool(settings.ssl_keyfile):
        raise UsageError("--ssl-certfile and --ssl-keyfile go together")
    for flag, path in (("--ssl-certfile", settings.ssl_certfile), ("--ssl-keyfile", settings.ssl_keyfile)):
        if path and not Path(path).is_file():
            raise UsageError(f"{flag} {path}: there is no such file")
    if settings.ssl_certfile:
        _check_certificate(settings)
    return dataclasses.replace(settings, token=token)


def _check_certificate(settings: WebSettings) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")
    except OSError as error:  # as ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror
        raise UsageError(f"--ssl-certfile {settings.ssl_certfile} and --ssl-keyfile {settings.ssl_keyfile} are no "
                         f"certificate and its key, as PEM without a password: {why}") from None


def open_port(settings: WebSettings) -> socket.socket:
    """Bound, so that its number is known and nobody else has it. Raises UsageError."""
    with contextlib.ExitStack() as unless_it_works:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM)[0]
            # asyncio sets TCP_NODELAY only where the protocol is named; without it answers wait 40 ms for an ACK
            opened = unless_it_works.enter_context(socket.socket(family, kind, protocol))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError as error:
            raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; --port chooses "
                             "another") from None
        unless_it_works.pop_all()
    return opened


def links(settings: WebSettings, listening: socket.socket) -> list[str]:
    """To open it: one for each token, with its name where there are several."""
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    name = socket.gethostname() if host in ("0.0.0.0", "::") else name
    return _with_tokens(f"http{'s' if settings.ssl_certfile else ''}://{name}:{port}", settings)


def _with_tokens(url: str, settings: WebSettings) -> list[str]:
    tokens = authentication.parse_tokens(settings.token)
    found = {name: f"{url}/?token={quote(secret, safe='')}" for name, secret in tokens.items()}
    return [f"{link} (for {name})" for name, link in found.items()] if len(found) > 1 else [*found.values()] or [url]


def make_server(settings: WebSettings, app: GuardedApp) -> uvicorn.Server:
    """The server of ``create_app``, to be run with the socket of ``open_port``."""
    http, websocket = limit_connections(settings.connections_per_address, app.app_state.counts, app.is_proxy)
    return uvicorn.Server(uvicorn.Config(
        app, http=http, ws=websocket, log_config=None, access_log=False,
        ws_max_size=MAX_JPEG_BYTES, ws_per_message_deflate=False, ws_ping_interval=5, ws_ping_timeout=5,
        proxy_headers=False,  # guard does that
        limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=3, server_header=False,
        ssl_certfile=settings.ssl_certfile or None, ssl_keyfile=settings.ssl_keyfile or None))


def serve(settings: WebSettings, app_state: AppState, ready: Callable[[str], None] = lambda link: None,
          debug: bool = False) -> None:
    """Serves until it is told to stop; ``ready`` gets each link. ``settings`` are from ``check``. Raises UsageError."""
    logs.configure_logging(settings.log, debug)
    listening = open_port(settings)
    app = create_app(settings, app_state)
    server = make_server(settings, app)
    ends = [listening.close]
    try:
        if settings.metrics_port:
            ends.append(metrics.serve(settings.metrics_port, app_state, app.waiting_room))
        for link in links(settings, listening) + (
                share(settings, listening.getsockname()[1]) if settings.share else []):
            ready(link)
        server.run([listening])
    finally:
        for end in reversed(ends):
            end()
        app_state.close()


def share(settings: WebSettings, port: int) -> list[str]:
    """Public links, through Gradio's tunnel. Raises UsageError when there is none to be had."""
    from gradio import networking

    try:
        link = networking.setup_tunnel("127.0.0.1", port, authentication.new_token(), None, None)
    except Exception as error:  # its program cannot be fetched or started
        raise UsageError(f"--share found no tunnel: {error}") from None
    return _with_tokens(link, settings)
