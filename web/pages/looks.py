"""The gallery of looks, the same in each tab: presets to choose by their pictures, to mix and to subtract.

All pictures are one sheet, so a page needs one request for them. ``assets/looks.js`` is the behaviour.
"""
from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
from collections.abc import Callable
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamdream import models, settings
from streamdream.automation.controls import DreamRequest
from streamdream.errors import StreamdreamError, UsageError
from streamdream.media import images
from streamdream.media.opencv import cv2
from streamdream.media.resize import resize
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import LayerWeight, format_layers, parse_layers
from streamdream.system.torch_threads import use_threads

from ..core import assets, strings
from ..core.messages import visitor_message
from ..core.state import AppState
from ..jobs.service import JobService
from ..live import session
from .components import sentence

if TYPE_CHECKING:
    from streamdream.models import Model

PICTURES = assets.ASSETS / "looks"
WIDTH, HEIGHT, COLUMNS = 200, 130, 6
"""Size of a picture in pixels; pictures in a row of the sheet."""
WEBP_QUALITY = 82
CLIENT = "mixing"
"""Client of the device that measures gradients."""
MAX_WAITING = 4
SHARES: dict[str, Callable[[float], tuple[float, float]]] = {
    "mix": lambda amount: (1 - amount, amount), "subtract": lambda amount: (1.0, -amount)}
"""Shares of the present layers and of the look."""
_waiting = threading.BoundedSemaphore(MAX_WAITING)
_found: WeakKeyDictionary[AppState, list[dict[str, Any]]] = WeakKeyDictionary()


def routes(jobs_service: JobService) -> list[Route]:
    """``GET /looks/sheet``: all pictures. ``GET /looks/mix``: layers, joined with those of a look."""

    def pictures(request: Request) -> Response:
        return Response(sheet(), media_type="image/webp",
                        headers={"Cache-Control": "private, max-age=31536000, immutable"})  # its URL has its hash

    def mixed(request: Request) -> Response:
        query = request.query_params
        try:
            mode, amount = query.get("mode", ""), float(query.get("amount", "0.5"))
            text = mix(jobs_service.app_state, query.get("model", ""), query.get("layers", ""), query.get("other", ""),
                       mode, amount)
            return JSONResponse({"layers": text})
        except StreamdreamError as error:
            return JSONResponse({"problem": sentence(visitor_message(error))})
        except ValueError:
            return JSONResponse({"problem": strings.text("looks.no_mix")})

    return [Route("/looks/sheet", pictures, methods=["GET"]), Route("/looks/mix", mixed, methods=["GET"])]


def looks(app_state: AppState) -> list[dict[str, Any]]:
    """Return the presets that the server's model can dream live: ``name, label, family, about, values``."""
    if app_state not in _found:
        _found[app_state] = _find_looks(app_state)
    return _found[app_state]


def _find_looks(app_state: AppState) -> list[dict[str, Any]]:
    """Return ``looks``. Takes some tenths of a second."""
    start = session.clamped_defaults(app_state)
    known = {item.name for item in dataclasses.fields(DreamSettings)}
    found = []
    for name in look_names():
        own = {key: value for key, value in settings.read_preset(name).items() if key in known}
        try:
            for entry in ({}, *(entry.values for entry in session.read_playlist(name)[0])):
                session.check(app_state, DreamRequest(dataclasses.replace(start, **{**own, **entry})))
        except StreamdreamError:
            continue  # for another model
        label = name.removeprefix(settings.LOOK_PREFIX).replace("-", " ").capitalize()
        found.append({"name": name, "label": label, "family": settings.preset_family(name),
                      "about": settings.about_preset(name), "values": own})
    return found


def look_names() -> list[str]:
    """Return the looks, family by family."""
    return sorted(settings.look_names(), key=settings.preset_family)


def mix(app_state: AppState, model_name: str, layers: str, other: str, mode: str, amount: float) -> str:
    """Return ``layers`` and ``other``, those of a look, as one text, over their mean gradients: see ``ascent.mixing``.

    With ``mode`` "mix" the other has the share ``amount`` of 0..1, with "subtract" its weights are negative. Takes some
    tenths of a second for new layers. Raises UsageError.
    """
    if mode not in SHARES or not 0 <= amount <= 1:
        raise UsageError(strings.text("looks.no_mix"))
    start = session.clamped_defaults(app_state)
    for text in (layers, other):
        session.check(app_state, DreamRequest(dataclasses.replace(start, layers=text, channel=""), model_name))
    if not _waiting.acquire(blocking=False):
        raise UsageError(strings.text("looks.too_many"))
    try:
        with use_threads(1), app_state.device_slot(CLIENT):
            return _join(models.get(model_name), (layers, other), SHARES[mode](amount))
    finally:
        _waiting.release()


def _join(model: Model, texts: tuple[str, str], shares: tuple[float, float]) -> str:
    from streamdream.ascent.mixing import gradient_magnitude

    joined: dict[tuple[str, tuple[int, ...]], float] = {}
    for text, share in zip(texts, shares, strict=True):
        layers = tuple(part._replace(name=model.resolve_tap(part.name)) for part in parse_layers(text))
        factor = share / gradient_magnitude(model, layers)
        for name, weight, channels in layers:
            joined[name, channels] = joined.get((name, channels), 0.0) + weight * factor
    largest = max(map(abs, joined.values())) or 1.0
    parts = (LayerWeight(name, float(f"{weight / largest:.3g}"), channels)
             for (name, channels), weight in joined.items())
    return format_layers(tuple(part for part in parts if part.weight)) or texts[0]


def gallery(app_state: AppState, where: str) -> str:
    """Return the HTML of the gallery in the tab ``where``."""
    available = looks(app_state)
    if not available:
        return ""
    say = strings.html
    modes = "".join(f'<label title="{say(f"looks.{mode}_title")}"><input type="radio" name="looks-{where}" '
                    f'value="{mode}"{" checked" if mode == "use" else ""}><span>{say(f"looks.{mode}")}</span></label>'
                    for mode in ("use", *SHARES))
    groups = "".join(_family(name, list(members))
                     for name, members in itertools.groupby(available, key=lambda look: look["family"]))
    return (f'<div class="sd-looks-box"><div class="sd-looks-head"><h2>{say("looks.title")}</h2>'
            f'<button type="button" class="sd-keep" title="{say("own_looks.keep_title")}">{say("own_looks.keep")}'
            "</button></div>"
            f'<div class="sd-modes" role="radiogroup" aria-label="{say("looks.modes")}">{modes}</div>'
            f'<div class="sd-looks" role="group" aria-label="{say("looks.title")}">{groups}</div>'
            '<label class="sd-amount" hidden><span></span><input type="range" min="0" max="100" step="5" value="50">'
            "<output></output></label>"
            '<p class="sd-problem" role="alert" hidden></p></div>')


def _family(name: str, members: list[dict[str, Any]]) -> str:
    heading = f"<h3>{escape(name.capitalize())}</h3>" if name else ""
    return heading + "".join(
        f'<button type="button" class="sd-look" data-look="{look["name"]}" aria-pressed="false" '
        f'title="{escape(look["about"])}">{picture(look["name"])}<span>{escape(look["label"])}</span></button>'
        for look in members)


def picture(name: str) -> str:
    """Return a part of the sheet as HTML; "" for a look without a picture."""
    names, columns, rows = _layout()
    if name not in names:
        return ""
    column, row = names.index(name) % columns, names.index(name) // columns
    return (f'<i style="background-image:url(looks/sheet?{version()});background-size:{columns}00% {rows}00%;'
            f'background-position:{100 * column / max(1, columns - 1):.4g}% {100 * row / max(1, rows - 1):.4g}%"></i>')



@cache
def sheet() -> bytes:
    """Return all pictures as one WebP."""
    names, columns, rows = _layout()
    cells = np.zeros((rows * columns, HEIGHT, WIDTH, 3), np.uint8)
    for number, name in enumerate(names):
        cells[number] = resize(images.read_image(str(PICTURES / f"{name}.webp")), HEIGHT, WIDTH)
    whole = cells.reshape(rows, columns, HEIGHT, WIDTH, 3).swapaxes(1, 2).reshape(rows * HEIGHT, columns * WIDTH, 3)
    return bytes(cv2().imencode(".webp", whole[..., ::-1], [cv2().IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1])


@cache
def version() -> str:
    """Return the hash of the pictures."""
    digest = hashlib.sha256()
    for name in _layout()[0]:
        digest.update((PICTURES / f"{name}.webp").read_bytes())
    return digest.hexdigest()[:12]


@cache
def _layout() -> tuple[list[str], int, int]:
    """Return the looks with a picture; columns and rows of the sheet."""
    names = [name for name in look_names() if (PICTURES / f"{name}.webp").is_file()]
    columns = max(1, min(COLUMNS, len(names)))
    return names, columns, max(1, -(-len(names) // columns))
