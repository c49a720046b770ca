"""The app: Gradio's tabs, the live socket and a few routes of our own, on one FastAPI, behind one guard.

    browser ──▶ uvicorn ──▶ guard ──▶ /live        live.py       a WebSocket: JPEG up, JPEG down
                                  ├─▶ /healthz     is it alive
                                  ├─▶ routes(studio) of the tabs, pages/*.py
                                  └─▶ /            Gradio: the tabs themselves
"""
from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamdream import __version__
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

from .studio import Studio

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is told to anybody; before gradio is loaded

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

TABS = {"Live": "live", "Video": "video", "Picture": "picture", "Layers": "layers"}
"""Title -> the file of ``pages``."""
ASSETS = Path(__file__).with_name("assets")
ASSETS_PATH = "/streamdream"


def create_app(settings: WebSettings, studio: Studio | None = None) -> FastAPI:
    """The whole app. ``studio`` is made from the defaults when there is none; it is closed with the app."""
    studio = studio or Studio(settings, DreamSettings(), StreamSettings())
    pages = {title: importlib.import_module(f".pages.{name}", __package__) for title, name in TABS.items()}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan(studio))
    app.state.studio = studio
    app.add_api_route("/healthz", lambda: JSONResponse({"status": "ok", "version": __version__}))
    app.mount(ASSETS_PATH, StaticFiles(directory=ASSETS))
    for page in pages.values():
        if hasattr(page, "routes"):
            app.router.routes.extend(page.routes(studio))
    return _mount(app, _blocks(studio, pages), settings)


def _lifespan(studio: Studio) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.close()

    return lifespan


def _blocks(studio: Studio, pages: dict[str, Any]) -> Any:
    with gr.Blocks(title="streamdream", analytics_enabled=False, fill_width=True, delete_cache=(60, 600)) as blocks, \
            gr.Tabs():
        for title, page in pages.items():
            with gr.Tab(title, id=title.lower(), elem_id=f"tab-{title.lower()}"):
                page.build(studio)
    blocks.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    return blocks


def _mount(app: FastAPI, blocks: Any, settings: WebSettings) -> FastAPI:
    mounted: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
        mcp_server=False, show_error=True, max_file_size=int(settings.upload_mb * 1e6), allowed_paths=[])
    return mounted


def serve(settings: WebSettings, studio: Studio) -> None:
    """Serves until it is told to stop."""
    import uvicorn

    uvicorn.run(create_app(settings, studio), host=settings.host, port=settings.port, log_level="warning")
