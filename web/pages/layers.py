"""The tab Layers: thumbnails of all layers of a model, and its channels. A click selects one in all tabs."""
from __future__ import annotations

from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from streamdream import models
from streamdream.media import images
from streamdream.media.opencv import cv2

from ..core import assets, strings
from ..jobs.service import JobService
from . import components
from .panel_facts import middle_block
from .settings_panel import SettingsPanel, gallery, missing_html, on_event

TICK_SECONDS = 3.0
BLOCKS, ALL, CHANNELS = (strings.text(f"layers_tab.{name}") for name in ("blocks", "all", "channels"))
IMAGE_TYPES = {".png": "image/png", ".webp": "image/webp"}
WEBP_QUALITY = 85


def routes(jobs_service: JobService) -> list[Route]:
    """``GET /layers/MODEL/NUMBER``: the thumbnail of that layer; one pixel until it is made. ``/layers/MODEL/sheet``:
    those of the blocks side by side; one pixel until all are made.
    """
    def answer(data: bytes) -> Response:
        cache = "private, max-age=86400" if data else "no-store"
        return Response(data or components.one_pixel(), media_type="image/webp" if data else "image/png",
                        headers={"Cache-Control": cache})

    def blocks(request: Request) -> Response:  # in a thread, as it reads files
        row = models.MODELS.get(request.path_params["model"])
        paths = [jobs_service.thumbnails.path(row.name, tap) for tap in row.blocks()] if row else []
        return answer(sheet(tuple(map(str, paths))) if paths and all(paths) else b"")

    def picture(request: Request) -> Response:  # in a thread, as it makes files
        model, number = request.path_params["model"], request.path_params["number"]
        taps = list(models.MODELS[model].taps()) if model in models.MODELS else []
        path = jobs_service.thumbnails.path(model, taps[number]) if number < len(taps) else None
        if path is None:
            return answer(b"")
        return FileResponse(path, media_type=IMAGE_TYPES[path.suffix],
                            headers={"Cache-Control": "private, max-age=86400"})

    return [Route("/layers/{model}/{number:int}", picture, methods=["GET"]),
            Route("/layers/{model}/sheet", blocks, methods=["GET"])]


@lru_cache(maxsize=16)
def sheet(paths: tuple[str, ...]) -> bytes:
    """Return thumbnails side by side as one WebP."""
    row = np.hstack([images.read_image(path) for path in paths])
    return bytes(cv2().imencode(".webp", row[..., ::-1], [cv2().IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1])


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``, after all tabs that hold layers."""
    Page(jobs_service).build()


def say(name: str, **values: object) -> str:
    return strings.text(f"layers_tab.{name}", **values)


class Page:
    """Components and events of the tab."""

    def __init__(self, jobs_service: JobService) -> None:
        self._jobs_service = jobs_service

    def build(self) -> None:
        here = self._jobs_service.app_state.stream.model
        components.style()
        with gr.Row(elem_classes="sw-choose"):
            model = gr.Dropdown(list(models.MODELS), value=here, label=say("network"), info=models.get(here).about,
                                elem_id="layers-model", scale=2)
            which = gr.Radio([BLOCKS, ALL, CHANNELS], value=BLOCKS, label=say("show"), info=say("order"),
                             elem_id="layers-which")
        status = components.plain_html(self._status_html(here))
        tiles = components.plain_html(gallery(here, whole=False, chosen=self._jobs_service.app_state.dream.layers),
                                      js=assets.text("layer_picker.js"), elem_id="layers-gallery")
        picker = components.plain_html("", js=assets.text("channels_in_tab.js"), elem_id="layers-channels")
        timer = gr.Timer(TICK_SECONDS, active=False)
        if self._jobs_service.thumbnails.pending(here):
            on_event(components.root().load, self._on_load, [], [status, timer])
        for changed in (model.input, which.input):
            on_event(changed, self._on_choice, [model, which], [model, tiles, picker, status, timer])
        on_event(timer.tick, self._status_updates, [model], [status, timer], trigger_mode="once")
        on_event(tiles.select, self._on_layer_click, [], [])

    def _on_load(self) -> tuple[Any, ...]:
        here = self._jobs_service.app_state.stream.model
        self._jobs_service.thumbnails.request(here)
        return self._status_updates(here)

    def _on_choice(self, model: str, which: str) -> tuple[Any, ...]:
        about = gr.update(info=models.get(model).about)
        if which == CHANNELS and models.get(model).available()[0]:
            return about, "", picker_html(model), "", gr.Timer(active=False)
        self._jobs_service.thumbnails.request(model)
        return about, gallery(model, whole=which == ALL), "", *self._status_updates(model)

    def _status_updates(self, model: str) -> tuple[Any, ...]:
        return self._status_html(model), gr.Timer(active=self._jobs_service.thumbnails.pending(model))

    def _status_html(self, model: str) -> str:
        """Return one line: a hint with the progress of the thumbnails, or why there are none."""
        if not models.get(model).available()[0]:
            return f'<p class="sw-missing">{missing_html(model)}</p>'
        if problem := self._jobs_service.thumbnails.problem.get(model):
            return f'<p class="sw-missing">{escape(components.sentence(problem))}</p>'
        progress = ""
        if self._jobs_service.thumbnails.pending(model):
            done, count = self._jobs_service.thumbnails.count(model)
            progress = " " + say("progress", done=done, count=count)
        return f'<p class="sw-hint">{escape(say("hint") + progress)}</p>'

    def _on_layer_click(self, event: gr.EventData) -> None:
        """Say what the script has done: see ``assets/use_settings.js``."""
        picked: dict[str, Any] = event._data or {}
        layer = models.get(str(picked.get("model"))).resolve_tap(str(picked.get("layer")))
        gr.Info(say("all_use", layer=layer), title=say("selected"), duration=3)


def picker_html(model: str) -> str:
    """Return the place of the picker of channels, with the layers that it begins from."""
    return f'<div class="sd-picker" data-model="{escape(model)}" data-start="{escape(middle_block(model))}"></div>'
