"""The tab Live: the page itself is ``assets/live.*``; this module describes the settings to it."""
from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from streamdream import models
from streamdream.settings import DreamSettings

from ..core import assets, limits
from ..core.state import AppState
from ..jobs.service import JobService
from ..live import session
from . import looks, setting_controls
from .settings_panel import SettingsPanel, middle_block

LOAD = f"""
import(new URL("{assets.url("live.js")}", document.baseURI)).then((page) =>
  page.start(element.querySelector(".sd")));
"""


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    template = assets.text("live.html").replace("LOOKS", looks.gallery(jobs_service.app_state, "live"))
    gr.HTML(html_template=template, js_on_load=LOAD, elem_id="live-page", apply_default_css=False)


def routes(jobs_service: JobService) -> list[APIRoute]:
    return [APIRoute("/live/facts", lambda: JSONResponse(facts(jobs_service.app_state)))]


def facts(app_state: AppState) -> dict[str, Any]:
    """Return what the page makes its controls from."""
    start = session.clamped_defaults(app_state)
    own, names = app_state.model.name, app_state.available_models()
    networks = {name: network(name) for name in names}
    networks[own]["start"] = start.layers
    chooser = [{"name": "model", "label": "Network", "help": "the neural network", "unit": "", "kind": "choice",
                "choices": names, "basic": True, "default": own}] if len(names) > 1 else []
    return {
        "model": own,
        "fields": chooser + setting_controls.describe(DreamSettings, highest=limits.LIVE_MAXIMA),
        "values": dataclasses.asdict(start) | {"model": own},
        "looks": looks.looks(app_state),
        "networks": networks,
    }


def network(name: str) -> dict[str, Any]:
    """Describe a model: all layers, those with a tile, the sheet of their pictures, and the default one."""
    taps = models.get(name).taps()
    return {"taps": list(taps), "start": middle_block(name), "sheet": f"layers/{name}/sheet",
            "layers": [{"name": tap, "channels": taps[tap].channels} for tap in models.get(name).blocks()]}
