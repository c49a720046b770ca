"""What the scripts make the settings of a tab from: their HTML, and facts about fields, looks, presets and networks."""
from __future__ import annotations

import dataclasses
from typing import Any

from streamdream import models, settings
from streamdream.settings import DreamSettings

from ..core import assets, limits, strings
from ..core.state import AppState
from ..live import session
from . import intensity, layer_words, looks, setting_controls


def panel_html(app_state: AppState, where: str, in_tab: bool) -> str:
    """Return the HTML of the settings, the same in each tab; ``where`` is the tab's own name."""
    inner = assets.text("panel.html").replace("LOOKS", looks.gallery(app_state, where))
    with_live = in_tab and "live" in map(str.strip, app_state.web.tabs.split(","))
    inner = inner.replace("FROM_LIVE", assets.text("from_live.html") if with_live else "")
    title = strings.html("panel.title")
    return f'<section class="sd-panel" aria-busy="true" aria-label="{title}">{inner}</section>' if in_tab else inner


def facts(app_state: AppState) -> dict[str, Any]:
    """Return what the scripts make the controls from: fields and values of the tab Live, and what all tabs share."""
    start = session.clamped_defaults(app_state)
    own, names = app_state.model.name, app_state.available_models()
    networks = {name: network(name) for name in names}
    networks[own]["start"] = start.layers
    words = strings.section("panel")
    scaled = words["intensity_technical"].format(names=", ".join(intensity.POINTS))
    return {
        "model": own,
        "fields": model_field(app_state) + setting_controls.describe(DreamSettings, highest=limits.LIVE_MAXIMA),
        "values": dataclasses.asdict(start) | {"model": own},
        "intensity": {"points": intensity.POINTS, "field": {
            "name": "intensity", "label": words["intensity"], "help": words["intensity_help"], "technical": scaled,
            "kind": "range", "low": 0, "high": 100, "step": 1, "unit": "", "whole": True, "default": 50}},
        "looks": looks.looks(app_state),
        "presets": [{"name": name, "label": name.replace("-", " ").capitalize(), "values": settings.read_preset(name)}
                    for name in settings.preset_names() if name not in settings.look_names()],
        "networks": networks,
    }


def model_field(app_state: AppState) -> list[dict[str, Any]]:
    """Describe the choice of a network, as ``setting_controls.describe`` does, where there is more than one."""
    names = app_state.available_models()
    row = {"name": "model", **strings.section("settings")["model"], "technical": f"model: {', '.join(names)}",
           "kind": "choice", "choices": names, "default": app_state.model.name}
    return [row] if len(names) > 1 else []


def network(name: str) -> dict[str, Any]:
    """Describe a model: all layers in words, those with a tile, the sheet of their pictures, and the default one."""
    taps = models.get(name).taps()
    return {"taps": layer_words.words(name), "start": middle_block(name), "sheet": f"layers/{name}/sheet",
            "layers": [{"name": tap, "channels": taps[tap].channels} for tap in models.get(name).blocks()]}


def middle_block(model: str) -> str:
    """Return the default layer of a model."""
    blocks = models.get(model).blocks()
    return blocks[len(blocks) // 2]
