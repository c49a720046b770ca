"""The settings beside a video or a picture: preset, model, layers with thumbnails, sliders, guide and style."""
from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from streamdream import models, settings
from streamdream.errors import StreamdreamError, UsageError
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.settings_parsing import parse_layers

from ..core import assets, limits
from ..jobs import service
from ..jobs.service import JobService
from ..jobs.upload import Upload
from . import components, looks, setting_controls
from .components import sentence
from .file_drop import DroppedFile, file_drop

FILES = {
    "guide": "Guide: dream toward the content of this picture",
    "style": "Style: dream in the style of this picture",
}
SIZE_ONLY = tuple(item.name for item in dataclasses.fields(StreamSettings) if item.name != "field_height")
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
    """Built within a tab. ``inputs`` are the inputs of an event; ``read`` takes their values."""

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel], preset: str = "",
                 without: Sequence[str] = ()) -> None:
        self._jobs_service, self._start = jobs_service, preset
        start = settings.resolve({}, {}, preset)
        dream = start.dream if preset else jobs_service.app_state.dream
        stream = start.stream if preset else jobs_service.app_state.stream
        here = jobs_service.app_state.stream.model
        presets = [(name.replace("-", " ").capitalize(), name) for name in settings.preset_names()]
        self._looks = components.plain_html(looks.gallery(jobs_service.app_state, f"tab-{len(panels)}"),
                                            js=looks.SCRIPT, elem_classes=["sw-looks"])
        self._preset = gr.Dropdown([("None", ""), *presets], value=preset, label="Preset",
                                   info="Initial values of the settings")
        self._model = gr.Dropdown(list(models.MODELS), value=here, label="Network", info="The neural network")
        self._missing = components.plain_html("")
        self._picker = components.plain_html(gallery(here, whole=False, chosen=jobs_service.app_state.dream.layers),
                                             js=assets.text("layer_picker.js"), elem_classes=["sw-picker"])
        self._fixed = {name: getattr(dream, name) for name in without}
        values = dataclasses.asdict(dream) | {"layers": jobs_service.app_state.dream.layers}
        self._form = setting_controls.build(DreamSettings, values, without, {"layers": layer_names(here)},
                                            limits.JOB_MAXIMA)
        self._size = setting_controls.build(StreamSettings, {"field_height": stream.field_height}, SIZE_ONLY,
                                            highest={"field_height": limits.MAX_FIELD_HEIGHT}, more="Size")
        with gr.Accordion("Guide and style", open=False):
            self._files = {role: file_drop(label, most_mb=jobs_service.app_state.web.upload_mb, elem_id="")
                           for role, label in FILES.items()}
        self.inputs: list[Any] = [self._model, *self._files.values(), *self._size.inputs, *self._form.inputs]
        layers = self._form.inputs[self._form.names.index("layers")]
        self.layer_parts = [self._model, layers, self._picker]
        """Components that the tab Layers updates."""
        panels.append(self)
        on_event(self._preset.input, self._use_preset, [self._preset, self._model],
                 [self._picker, *self._form.inputs, *self._size.inputs])
        on_event(self._looks.select, self._use_look, [self._model],
                 [self._preset, self._picker, *self._form.inputs, *self._size.inputs])
        on_event(self._model.input, self._use_model, [self._model], [layers, self._picker, self._missing])
        on_event(self._picker.select, _picked, [], [layers])
        for file in self._files.values():
            on_event(file.upload, self.keep, [file], [])

    def keep(self, request: gr.Request, file: str) -> None:
        """Claim a dropped file, so that it lives as long as the visitor."""
        if dropped := DroppedFile.parse(file):
            self._jobs_service.uploads.claim(dropped.token, self._jobs_service.touch(request))

    def read(self, values: Sequence[Any], visitor: str, mask: bytes = b"") -> PanelValues:
        """Return the checked values of ``inputs``. Raises UsageError."""
        model, files = str(values[0]), values[1:1 + len(self._files)]
        rest = values[1 + len(self._files):]
        size = self._size.read(rest[:len(self._size.names)])
        if models.get(model).available()[0] is False:
            raise UsageError(missing(model))
        uploads = {}
        for role, value in zip(self._files, files, strict=True):
            dropped = DroppedFile.parse(value)
            uploads[role] = service.claim(self._jobs_service, visitor, dropped.token, False) if dropped else None
        uploads["mask"] = service.read_mask(self._jobs_service, visitor, mask)
        form = {**self._fixed, **self._form.read(rest[len(self._size.names):])}
        dream = self._jobs_service.dream_settings(form, uploads, model)
        return PanelValues(model, dream, size["field_height"] or limits.MAX_FIELD_HEIGHT,
                           {role: upload for role, upload in uploads.items() if upload})

    def _use_preset(self, name: str, model: str) -> list[Any]:
        """Return the updates for a preset; layers only if it names some that the model has."""
        return self._use_values(settings.read_preset(name) if name else {}, model)

    def _use_look(self, event: gr.EventData, model: str) -> list[Any]:
        """Return the updates for a look, over the tab's initial values, or for mixed layers."""
        picked: dict[str, Any] = event._data or {}
        if layers := str(picked.get("layers", "")):
            return [gr.update(), gallery(model, whole=False, chosen=layers), *self._form.show({"layers": layers}),
                    *self._size.show({})]
        look = str(picked.get("look", ""))
        start = settings.read_preset(self._start) if self._start else {}
        shown = look if look in looks.look_names() else ""
        return [shown, *self._use_values({**start, **(settings.read_preset(shown) if shown else {})}, model)]

    def _use_values(self, values: Mapping[str, Any], model: str) -> list[Any]:
        run = settings.resolve({}, {}, values)
        dream = dataclasses.asdict(run.dream)
        dream |= {key: min(dream[key], most) for key, most in limits.JOB_MAXIMA.items()}
        layers = str(values.get("layers", ""))
        if not (layers and set(named(layers)) <= set(models.get(model).taps())):
            del dream["layers"]
        picker = gallery(model, whole=False, chosen=layers) if "layers" in dream else gr.update()
        return [picker, *self._form.show(dream), *self._size.show({"field_height": run.stream.field_height})]

    def _use_model(self, name: str) -> list[Any]:
        if not models.get(name).available()[0]:
            return [gr.update(), "", f'<p class="sw-missing">{missing_html(name)}</p>']
        self._jobs_service.thumbnails.request(name)
        names = layer_names(name)
        own = name == self._jobs_service.app_state.stream.model
        first = self._jobs_service.app_state.dream.layers if own else middle_block(name)
        return [gr.update(choices=names, value=first), gallery(name, whole=False, chosen=first), ""]


def middle_block(model: str) -> str:
    """Return the default layer of a model."""
    blocks = models.get(model).blocks()
    return blocks[len(blocks) // 2]


def named(layers: str) -> list[str]:
    """``mixed3:1,mixed5[33]:0.5`` -> mixed3, mixed5; nothing for what is no text of layers."""
    try:
        return [part.name for part in parse_layers(layers)]
    except UsageError:
        return []


def _picked(event: gr.EventData) -> str:
    return str((event._data or {}).get("layer", ""))


def gallery(model: str, whole: bool, chosen: str = "") -> str:
    """Return buttons with thumbnails for the blocks, or for all layers of the ``whole`` model; "" without weights."""
    if not models.get(model).available()[0]:
        return ""
    main, taken = set(models.get(model).blocks(pools=True)), named(chosen)
    cells = []
    for number, tap in enumerate(models.get(model).taps()):
        if whole or tap in main:
            name, source = escape(tap), service.thumbnail_url(model, number)
            cells.append(f'<button type="button" data-layer="{name}" data-model="{model}" title="{name}" '
                         f'aria-pressed="{str(tap in taken).lower()}">'
                         f'<img loading="lazy" alt="" src="{source}"><span>{name}</span></button>')
    return f'<div class="sw-gallery">{"".join(cells)}</div>'


def layer_names(model: str) -> list[str]:
    """Return the blocks, then all other layers, lowest first."""
    main = models.get(model).blocks(pools=True)
    return main + [tap for tap in models.get(model).taps() if tap not in main]


def missing(model: str) -> str:
    """Return the message for a model without weights."""
    return (f"the weights of {model} are not installed; the server's owner can install them with: "
            f"streamdream fetch {model}")


def missing_html(model: str) -> str:
    return (f"The weights of {model} are not installed. The server's owner can install them with "
            f"<code>streamdream fetch {model}</code>.")


def report_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show errors of an event as one line on the page; an unexpected one is logged, and the page refers to the log."""
    def translate(error: Exception) -> Exception:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, UsageError):
            return gr.Error(sentence(str(error)), title="Invalid input", print_exception=False)
        if isinstance(error, StreamdreamError):
            return gr.Error(sentence(str(error)), title="Error", print_exception=False)
        log.error("an event of the page failed", exc_info=error)
        return gr.Error("Internal error. See the server's log.", print_exception=False)

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
