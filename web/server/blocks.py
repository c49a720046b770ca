"""The page as Gradio's blocks: the heading and the tabs, each of which is loaded when it is opened first."""
from __future__ import annotations

import functools
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI
from gradio import routes

from streamdream.settings import WebSettings

from ..core import assets, strings
from ..jobs.service import JobService
from ..pages import heading
from . import startup
from .page_head import PageHead

if TYPE_CHECKING:
    from ..pages.settings_panel import SettingsPanel

SHOW = "() => Array(COUNT).fill({ __type__: 'update', visible: true })"
"""Script of a tab: shows what is in it."""
log = logging.getLogger(__name__)


def build(jobs_service: JobService, pages: dict[str, Any]) -> Any:
    """Return the ``gr.Blocks`` of these modules of ``pages``, by the names of their tabs."""
    app_state = jobs_service.app_state
    _set_gradio_folder(app_state.folder / "gradio")
    with gr.Blocks(title="streamdream", analytics_enabled=False, fill_width=True, delete_cache=(60, 600)) as blocks:
        panels: list[SettingsPanel] = []  # of the tabs so far
        with gr.Tabs(overflow_behavior="wrap"):  # its menu of more tabs cannot be used with the keyboard
            tabs = {name: gr.Tab(strings.text(f"tabs.{name}"), id=name, elem_id=f"tab-{name}") for name in pages}
            for name in sorted(tabs, key="layers".__eq__):  # the tab Layers sets the panels of all others
                with tabs[name]:
                    pages[name].build(jobs_service, panels)
        for tab in list(tabs.values())[1:]:
            _load_when_opened(tab)
    blocks.process_api = _report_errors(blocks.process_api)
    blocks.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    # Gradio checks whether an event may name a file (``processing_utils._check_allowed``) only after ``launch()``,
    # which ``mount_gradio_app`` never calls: without this line an event may name any file of the server.
    blocks.has_launched = True
    return blocks


def _load_when_opened(tab: gr.Tab) -> None:
    """Let a browser load the components of a tab when it is opened first. Gradio loads the code of all visible ones
    with the page, also of those in other tabs: two files for each kind.
    """
    within = [block for block in _descendants(tab) if getattr(block, "visible", False) is True]
    for block in within:
        block.visible = False
    tab.select(None, None, within, js=SHOW.replace("COUNT", str(len(within))), api_visibility="private")


def _descendants(block: Any) -> list[Any]:
    return [part for child in getattr(block, "children", ()) for part in (child, *_descendants(child))]


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
            raise gr.Error(strings.text("errors.request"), print_exception=False) from None

    return process_api


def mount(app: FastAPI, built: Any, settings: WebSettings) -> FastAPI:
    """Return ``app`` with the page of ``built``."""
    routes.templates.env.add_extension(PageHead)
    mounted: FastAPI = gr.mount_gradio_app(
        app, built, path="/", root_path=settings.root_path or None, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, show_error=True,
        max_file_size=int(settings.upload_mb * 1e6), allowed_paths=[], theme=gr.themes.Base(),
        favicon_path=str(assets.ASSETS / "icon.png"))
    built.config["heading"] = heading.html(settings, startup.read_terms(settings.terms))  # for the template
    return mounted
