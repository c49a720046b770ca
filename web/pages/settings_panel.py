"""The settings of the tabs: what their controls are made from, and their check; guide and style."""
from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from streamdream import models, settings
from streamdream.errors import StreamdreamError, UsageError
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.settings_parsing import parse_layers

from ..core import assets, limits, strings
from ..core.messages import visitor_message
from ..jobs import service
from ..jobs.service import JobService
from ..jobs.upload import Upload
from . import layer_words, setting_controls
from .components import sentence
from .file_drop import DroppedFile, file_drop
from .panel_facts import model_field, panel_html

FILES = ("guide", "style")
"""Settings that are pictures of the visitor, but for the mask."""
SIZE_ONLY = tuple(item.name for item in dataclasses.fields(StreamSettings) if item.name != "field_height")
MAX_VALUE_CHARACTERS = 20_000
"""Size of the panel's value."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PanelValues:
    """The checked values of the panel."""

    model: str
    dream: DreamSettings
    field_height: int
    files: dict[str, Upload]
    """Of guide, style and mask, where there is one."""


class SettingsPanel:
    """Built within a tab. ``inputs`` are the inputs of an event; ``read`` takes their values.

    The controls are made by ``assets/panel.js``; the server checks what they say. ``preset`` are the start values,
    ``without`` are fields that the tab does not have.
    """

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel], preset: str = "",
                 without: Sequence[str] = ()) -> None:
        self._jobs_service, self._without = jobs_service, without
        app_state = jobs_service.app_state
        start = settings.resolve({}, {}, preset)
        dream = start.dream if preset else app_state.dream
        stream = start.stream if preset else app_state.stream
        lower = {name: min(getattr(dream, name), most) for name, most in limits.JOB_MAXIMA.items()}
        self._start = dataclasses.replace(dream, layers=app_state.dream.layers, **lower)
        fields = [*model_field(app_state), *setting_controls.describe(DreamSettings, without, limits.JOB_MAXIMA),
                  *setting_controls.describe(StreamSettings, SIZE_ONLY, {"field_height": limits.MAX_FIELD_HEIGHT})]
        self._field_height = min(stream.field_height, limits.MAX_FIELD_HEIGHT)
        values = {**dataclasses.asdict(self._start), "model": app_state.model.name, "field_height": self._field_height}
        self._settings = gr.HTML(
            value="", html_template=panel_html(app_state, f"tab-{len(panels)}", in_tab=True),
            js_on_load=assets.component_script("settings_in_tab.js"), apply_default_css=False,
            elem_classes=["sw-flat", "sw-settings"], facts={"fields": fields, "values": values})
        with gr.Accordion(strings.text("panel.guide_style"), open=False):
            self._files = {role: file_drop(strings.text(f"panel.{role}"), most_mb=app_state.web.upload_mb,
                                           elem_id=f"{role}-drop-{len(panels)}")
                           for role in FILES}
        self.inputs: list[Any] = [self._settings, *self._files.values()]
        panels.append(self)
        for file in self._files.values():
            on_event(file.upload, self.keep, [file], [])

    def keep(self, request: gr.Request, file: str) -> None:
        """Claim a dropped file, so that it lives as long as the visitor."""
        if dropped := DroppedFile.parse(file):
            self._jobs_service.uploads.claim(dropped.token, self._jobs_service.touch(request))

    def read(self, values: Sequence[Any], visitor: str, mask: bytes = b"") -> PanelValues:
        """Return the checked values of ``inputs``. Raises UsageError."""
        chosen = parse_value(values[0])
        model = str(chosen.get("model", self._jobs_service.app_state.model.name))
        if not models.get(model).available()[0]:
            raise UsageError(missing(model))
        uploads = {}
        for role, value in zip(self._files, values[1:], strict=True):
            dropped = DroppedFile.parse(value)
            uploads[role] = service.claim(self._jobs_service, visitor, dropped.token, False) if dropped else None
        uploads["mask"] = service.read_mask(self._jobs_service, visitor, mask)
        form = {item.name: getattr(self._start, item.name) for item in dataclasses.fields(DreamSettings)}
        form |= setting_controls.read(DreamSettings, chosen, self._without)
        for name, most in limits.JOB_MAXIMA.items():
            if form[name] > most:
                raise UsageError(strings.text("panel.too_high", name=name, value=form[name], most=most))
        height = setting_controls.read(StreamSettings, chosen, SIZE_ONLY).get("field_height", self._field_height)
        dream = self._jobs_service.dream_settings(form, uploads, model)
        return PanelValues(model, dream, min(height, limits.MAX_FIELD_HEIGHT) or limits.MAX_FIELD_HEIGHT,
                           {role: upload for role, upload in uploads.items() if upload})


def parse_value(value: object) -> dict[str, Any]:
    """Parse the value of the panel: JSON, settings by name; the start values where it is empty. Raises UsageError."""
    text = str(value or "{}")
    try:
        parsed = json.loads(text) if len(text) <= MAX_VALUE_CHARACTERS else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UsageError(strings.text("errors.settings"))
    return parsed


def named(layers: str) -> list[str]:
    """``mixed3:1,mixed5[33]:0.5`` -> mixed3, mixed5; nothing for what is no text of layers."""
    try:
        return [part.name for part in parse_layers(layers)]
    except UsageError:
        return []


def gallery(model: str, whole: bool, chosen: str = "") -> str:
    """Return buttons with thumbnails for the blocks, or for all layers of the ``whole`` model; "" without weights."""
    if not models.get(model).available()[0]:
        return ""
    main, taken, words = set(models.get(model).blocks(pools=True)), named(chosen), layer_words.words(model)
    cells = []
    for number, tap in enumerate(models.get(model).taps()):
        if whole or tap in main:
            name, source = escape(tap), service.thumbnail_url(model, number)
            cells.append(f'<button type="button" data-layer="{name}" data-model="{model}" title="{name}" '
                         f'aria-pressed="{str(tap in taken).lower()}">'
                         f'<img loading="lazy" alt="" src="{source}"><span>{name}</span>'
                         f"<small>{escape(words[tap])}</small></button>")
    return f'<div class="sw-gallery">{"".join(cells)}</div>'


def missing(model: str) -> str:
    """Return the message for a model without weights."""
    return strings.text("panel.missing", name=model, command=f"streamdream fetch {model}")


def missing_html(model: str) -> str:
    return strings.html("panel.missing", name=model, command="COMMAND").replace(
        "COMMAND", f"<code>streamdream fetch {model}</code>")


def report_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show errors of an event as one line on the page; an unexpected one is logged, and the page refers to the log."""
    told = functools.partial(gr.Error, print_exception=False)

    def translate(error: Exception) -> Exception:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, UsageError):
            return told(sentence(visitor_message(error)), title=strings.text("errors.invalid"))
        if isinstance(error, StreamdreamError):
            return told(sentence(visitor_message(error)), title=strings.text("errors.failed"))
        log.error("an event of the page failed", exc_info=error)
        return told(strings.text("errors.internal"))

    if inspect.isgeneratorfunction(work):
        @functools.wraps(work)
        def generate(*arguments: Any) -> Iterator[Any]:
            try:
                yield from work(*arguments)
            except Exception as error:
                raise translate(error) from None
        return generate

    @functools.wraps(work)
    def call(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception as error:
            raise translate(error) from None
    return call


def on_event(event: Any, work: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any],
             **options: Any) -> Any:
    """Register an event that is not in the API, with errors shown by ``report_errors``."""
    return event(report_errors(work), list(inputs), list(outputs),
                 **{"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4, **options})
