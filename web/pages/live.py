"""The tab Live: the page itself is ``assets/live.*``; this module describes the settings to it."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from streamdream import models, settings
from streamdream.automation.controls import DreamRequest
from streamdream.errors import StreamdreamError
from streamdream.settings import DreamSettings

from ..core import limits
from ..core.state import AppState
from ..jobs.service import JobService, thumbnail_url
from ..live import session
from . import setting_controls
from .settings_panel import SettingsPanel, middle_block

ASSETS = Path(__file__).parents[1] / "assets"
LOOK = "look-"
"""Prefix of the presets that the page offers."""
LOAD = """
import(new URL("streamdream/live.js", document.baseURI)).then((page) =>
  page.start(element.querySelector(".sd")));
"""


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    gr.HTML(html_template=(ASSETS / "live.html").read_text(encoding="utf-8"), js_on_load=LOAD,
            elem_id="live-page", apply_default_css=False)


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
        "looks": looks(app_state, start),
        "networks": networks,
    }


def network(name: str) -> dict[str, Any]:
    """Describe a model: all layers, those with a tile, and the default one."""
    taps, tiles = models.get(name).taps(), models.get(name).blocks()
    return {"taps": list(taps), "start": middle_block(name),
            "layers": [{"name": tap, "channels": taps[tap].channels, "picture": thumbnail_url(name, number)}
                       for number, tap in enumerate(taps) if tap in tiles]}


def looks(app_state: AppState, start: DreamSettings) -> list[dict[str, Any]]:
    """Return the presets that the server's model can dream live."""
    known = {item.name for item in dataclasses.fields(DreamSettings)}
    found = []
    for name in settings.preset_names():
        if not name.startswith(LOOK):
            continue
        values = settings.read_preset(name)
        own = {key: value for key, value in values.items() if key in known}
        try:
            session.check(app_state, DreamRequest(dataclasses.replace(start, **own)))
        except StreamdreamError:
            continue  # for another model
        label = name.removeprefix(LOOK).replace("-", " ").capitalize()
        found.append({"name": name, "label": label, "about": settings.about_preset(name), "values": own})
    return found
