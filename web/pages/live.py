"""The tab Live: the page itself is ``assets/live.*``."""
from __future__ import annotations

import gradio as gr
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute

from streamdream.media.sample_files import EXAMPLE_CLIP

from ..core import assets
from ..jobs.service import JobService
from .panel_facts import facts, panel_html
from .settings_panel import SettingsPanel


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    template = assets.text("live.html").replace("PANEL", panel_html(jobs_service.app_state, "live", in_tab=False))
    gr.HTML(html_template=template, js_on_load=assets.component_script("live_in_tab.js"), elem_id="live-page",
            apply_default_css=False)


def routes(jobs_service: JobService) -> list[APIRoute]:
    return [APIRoute("/live/facts", lambda: JSONResponse(facts(jobs_service.app_state))),
            APIRoute("/live/clip", lambda: FileResponse(EXAMPLE_CLIP))]
