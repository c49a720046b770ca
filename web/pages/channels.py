"""What the picker of channels reads (``assets/channel_picker.js``): sheets of pictures, names, and a search in them."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamdream import models
from streamdream.models import channel_sheets

from ..core import limits, strings
from ..jobs.service import JobService
from . import layer_words
from .components import sentence
from .settings_panel import missing

MAX_FOUND = 300
"""Channels that one search shows."""


def routes(jobs_service: JobService) -> list[Route]:
    """``GET /channels/MODEL``: the blocks. ``/channels/MODEL/NUMBER``: the sheet of that layer.
    ``/channels/MODEL/search``: the channels whose names have the words ``q``.
    """
    def known(answer: Callable[[Request, str], Response]) -> Callable[[Request], Response]:
        def check(request: Request) -> Response:  # in a thread, as it looks at files
            model = request.path_params["model"]
            return answer(request, model) if model in models.MODELS else PlainTextResponse("no such network", 404)
        return check

    def blocks(request: Request, model: str) -> Response:
        return JSONResponse(describe(jobs_service, model), headers={"Cache-Control": "no-store"})

    def search(request: Request, model: str) -> Response:
        words = request.query_params.get("q", "")[:limits.MAX_SEARCH_CHARACTERS]
        found = channel_sheets.search(model, words) if words.strip() else []
        return JSONResponse([[tap, channel] for tap, channel, _ in found[:MAX_FOUND]],
                            headers={"Cache-Control": "private, max-age=86400"})

    def sheet(request: Request, model: str) -> Response:
        taps, number = list(models.get(model).taps()), request.path_params["number"]
        found = channel_sheets.sheet(model, taps[number]) if number < len(taps) else None
        if found is None:
            return PlainTextResponse("no such sheet", 404)
        return FileResponse(found.path, media_type="image/webp", headers={"Cache-Control": "private, max-age=86400"})

    return [Route("/channels/{model}", known(blocks), methods=["GET"]),
            Route("/channels/{model}/search", known(search), methods=["GET"]),
            Route("/channels/{model}/{number:int}", known(sheet), methods=["GET"])]


def describe(jobs_service: JobService, model: str) -> dict[str, Any]:
    """Return the blocks with their words, sheets and names, and one line about missing sheets, which are requested."""
    row, names, words = models.get(model), channel_sheets.names(model), layer_words.words(model)
    numbers = {tap: number for number, tap in enumerate(row.taps())}
    blocks = []
    for tap in row.blocks():
        sheet = channel_sheets.sheet(model, tap)
        blocks.append({"name": tap, "words": words[tap], "channels": row.taps()[tap].channels,
                       "sheet": f"channels/{model}/{numbers[tap]}" if sheet else "",
                       "columns": sheet.columns if sheet else 1,
                       "names": {channel: words for (layer, channel), words in names.items() if layer == tap}})
    return {"model": model, "blocks": blocks, "status": status(jobs_service, model),
            "pending": jobs_service.sheets.pending(model)}


def status(jobs_service: JobService, model: str) -> str:
    """Return one line about missing sheets, which are requested; "" if there are none."""
    sheets = jobs_service.sheets
    if not models.get(model).available()[0]:
        return missing(model)
    if problem := sheets.problem.get(model):
        return sentence(problem)
    if not sheets.pending(model):
        return ""
    sheets.request(model)
    done, count = sheets.count(model)
    return strings.text("channels.progress", done=done, count=count)
