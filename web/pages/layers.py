"""The tab Layers: what every layer of a network dreams, and a click that takes one."""
from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamdream import models
from streamdream.errors import UsageError

from .. import workshop
from ..studio import Studio
from ..thumbnails import blocks
from ..workshop import Workshop
from . import parts
from .panel import listen, missing_html

TICK_SECONDS = 3.0
WHOLE = "All layers"
MAIN = "Blocks"
PICK_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-layer]");
  if (!button) return;
  for (const other of element.querySelectorAll("button[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", "true");
  window.dispatchEvent(new CustomEvent("streamdream:layer", {detail: {layer: button.dataset.layer}}));
  trigger("select", {layer: button.dataset.layer});
});"""


def routes(studio: Studio) -> list[Route]:
    """``GET /layers/MODEL/NUMBER.png``: the dream of that model's layer, once it is made."""
    shop = workshop.of(studio)

    async def picture(request: Request) -> Response:
        model, number = request.path_params["model"], request.path_params["number"]
        taps = list(models.MODELS[model].taps()) if model in models.MODELS else []
        path = shop.thumbnails.path(model, taps[number]) if number < len(taps) else None
        if path is None:
            return PlainTextResponse("it is not made yet", 404)
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    return [Route("/layers/{model}/{number:int}.png", picture, methods=["GET"])]


def build(studio: Studio) -> None:
    """Within its ``gr.Tab``, after all tabs that hold layers."""
    Page(workshop.of(studio)).build()


class Page:
    """Components and events of the tab."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    def build(self) -> None:
        here = self._shop.studio.stream.model
        with gr.Row(elem_classes="sd-page sd-choose"):
            model = gr.Dropdown(list(models.MODELS), value=here, label="Network", info=models.get(here).about,
                                elem_id="layers-model", scale=2)
            which = gr.Radio([MAIN, WHOLE], value=MAIN, label="Show", elem_id="layers-which")
        said = gr.HTML(self._say(here, MAIN), apply_default_css=False, js_on_load=None)
        gallery = gr.HTML(self._gallery(here, MAIN), apply_default_css=False, js_on_load=PICK_JS,
                          elem_id="layers-gallery")
        timer = gr.Timer(TICK_SECONDS, active=False)
        root = gr.context.Context.root_block
        listen(root.load, self._choose, [model, which], [model, gallery, said, timer])
        for changed in (model.change, which.change):
            listen(changed, self._choose, [model, which], [model, gallery, said, timer])
        listen(timer.tick, self._refresh, [model, which], [gallery, said, timer], trigger_mode="once")
        listen(gallery.select, self._take, [model], self._shop.layer_fields)

    def _choose(self, model: str, which: str) -> tuple[Any, ...]:
        self._shop.thumbnails.want(model)
        return gr.update(info=models.get(model).about), *self._refresh(model, which)

    def _refresh(self, model: str, which: str) -> tuple[Any, ...]:
        left = models.get(model).available()[0] and len(self._shop.thumbnails.done(model)) < len(models.get(model).taps())
        moving = bool(left) and model not in self._shop.thumbnails.problem
        return self._gallery(model, which), self._say(model, which), gr.Timer(active=moving)

    def _say(self, model: str, which: str) -> str:
        """One line: what is to be seen, or why not."""
        if not models.get(model).available()[0]:
            return f'<p class="sd-missing">{missing_html(model)}</p>'
        if problem := self._shop.thumbnails.problem.get(model):
            return f'<p class="sd-missing">{escape(parts.sentence(problem))}</p>'
        done, all_taps = len(self._shop.thumbnails.done(model)), len(models.get(model).taps())
        coming = f" The pictures come while nobody needs the device: {done} of {all_taps}." if done < all_taps else ""
        return f'<p class="sd-said">What each layer dreams, lowest first. A click takes it, in every tab.{coming}</p>'

    def _gallery(self, model: str, which: str) -> str:
        if not models.get(model).available()[0]:
            return ""
        taps, main = list(models.get(model).taps()), set(blocks(model))
        done = set(self._shop.thumbnails.done(model))
        return '<div class="sd-gallery">' + "".join(
            _cell(model, number, tap, tap in done) for number, tap in enumerate(taps)
            if which == WHOLE or tap in main) + "</div>"

    def _take(self, event: gr.EventData, model: str) -> list[Any]:
        layer = str((event._data or {}).get("layer", ""))
        models.get(model).check_taps([layer])
        gr.Info(f"{layer} is what the other tabs dream now.", duration=3)
        if model != self._shop.studio.stream.model:
            raise UsageError(f"{layer} is of {model}; choose that network beside your video or picture first")
        return [gr.update(value=layer)] * len(self._shop.layer_fields)


def _cell(model: str, number: int, tap: str, done: bool) -> str:
    picture = (f'<img loading="lazy" alt="" src="layers/{model}/{number}.png">' if done
               else '<span class="sd-look-none" aria-hidden="true"></span>')
    return (f'<button type="button" data-layer="{escape(tap)}" aria-pressed="false">{picture}'
            f"<span>{escape(tap)}</span></button>")
