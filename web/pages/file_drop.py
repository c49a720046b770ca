"""The file drop: where a visitor puts a video or a picture, trims it, or draws a mask on it."""
from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange

from ..core import assets, strings
from ..jobs import file_inspection
from ..jobs.examples import Example


def file_drop(label: str, *, moving: bool = False, trim: bool = False, mask: bool = False, most_mb: float = 200,
              note: str = "", elem_id: str = "", examples: Sequence[Example] = ()) -> Any:
    """Make a ``gr.HTML`` to drop a file on. ``DroppedFile.parse`` reads its value; events: ``upload``, ``clear``.

    A browser remembers the file by ``elem_id``. ``examples`` are offered below.
    """
    import gradio as gr

    both = [list(file_inspection.UPLOADABLE_VIDEOS), list(file_inspection.UPLOADABLE_PICTURES)]
    kinds, others = both if moving else both[::-1]
    hint = note or strings.text("file_drop.hint")
    home = ("video" if moving else "picture") if trim or mask else ""
    template = _TEMPLATE.format(
        label=escape(label), hint=escape(hint), hint_id=f"{elem_id}-hint",
        caption="" if home else f'<p class="sw-drop-caption">{escape(label)}</p>',
        accept=",".join([*kinds, "video/*" if moving else "image/*"]),
        part=(_VIDEO if moving else _IMAGE).format(canvas=_canvas() if mask else ""),
        trim=_trim() if trim else "", tools=_tools() if mask else "",
        examples=_examples(examples) if examples else "",
        **{name: strings.html(f"file_drop.{name}") for name in ("remove", "retry", "progress")})
    return gr.HTML(value="", html_template=template, js_on_load=assets.component_script("file_drop.js"),
                   apply_default_css=False, elem_id=elem_id or None, elem_classes=["sw-flat"], max_mb=most_mb,
                   is_video=moving, hint=hint, drop_id=elem_id, kinds=kinds, other_kinds=others, home=home)


_TEMPLATE = """
<div class="sw-drop" aria-busy="true">
  <label class="sw-drop-zone" tabindex="-1">
    <input class="sw-drop-input" type="file" accept="{accept}" aria-label="{label}" aria-describedby="{hint_id}">
    <span class="sw-drop-label">{label}</span>
    <span class="sw-drop-hint" id="{hint_id}">{hint}</span>
  </label>
  <div class="sw-drop-preview" hidden>
    {caption}{part}
    <div class="sw-drop-line"><span class="sw-drop-name"></span><span class="sw-drop-note"></span>
      <button class="sw-drop-retry" type="button" hidden>{retry}</button>
      <button class="sw-drop-remove" type="button" aria-label="{remove}: {label}">{remove}</button></div>
    <progress class="sw-drop-bar" max="1" value="0" aria-label="{progress}" hidden></progress>
    {trim}{tools}
  </div>
  <p class="sw-drop-problem" role="alert" hidden></p>
  <button class="sw-drop-elsewhere" type="button" hidden></button>
  <p class="sw-drop-status" role="status"></p>
  {examples}
</div>"""
_VIDEO = """<video class="sw-drop-video" controls playsinline preload="metadata" hidden></video>
    <img class="sw-drop-image" alt="" hidden>"""  # a .gif
_IMAGE = '<div class="sw-drop-canvas-on"><img class="sw-drop-image" alt="" hidden>{canvas}</div>'


def _canvas() -> str:
    return f'<canvas class="sw-drop-canvas" role="img" aria-label="{strings.html("file_drop.draw")}"></canvas>'


def _trim() -> str:
    words = {name: strings.html(f"file_drop.{name}") for name in ("start", "end")}
    return """<div class="sw-drop-trim" hidden>
  <div class="sw-drop-track"><input class="sw-drop-first" type="range" min="0" step="any" aria-label="{start}">
    <input class="sw-drop-last" type="range" min="0" step="any" aria-label="{end}"></div>
  <output class="sw-drop-span"></output></div>""".format(**words)


def _tools() -> str:
    names = ("draw", "brush", "brush_size", "erase", "clear_drawing")
    words = {name: strings.html(f"file_drop.{name}") for name in names}
    return """<div class="sw-drop-tools" hidden>
  <span>{draw}</span>
  <label>{brush} <input class="sw-drop-brush" type="range" min="1" max="30" value="9" aria-label="{brush_size}"></label>
  <label><input class="sw-drop-erase" type="checkbox"> {erase}</label>
  <button class="sw-drop-clear-mask" type="button">{clear_drawing}</button></div>""".format(**words)


def _examples(examples: Sequence[Example]) -> str:
    buttons = "".join(
        f'<button type="button" data-example="{example.name}"><img src="{assets.url(example.thumbnail)}" alt="" '
        f'width="256" height="144" loading="lazy"><span>{strings.html(f"examples.{example.name}")}</span></button>'
        for example in examples)
    return (f'<div class="sw-drop-examples" role="group" aria-label="{strings.html("examples.title")}">'
            f'<p>{strings.html("examples.title")}</p><div>{buttons}</div></div>')


@dataclass(frozen=True)
class DroppedFile:
    """The value of a file drop: a file's token, the span of a video, a drawn mask as PNG."""

    token: str
    span: TimeRange
    mask: bytes = b""

    @classmethod
    def parse(cls, value: object) -> DroppedFile | None:
        """Parse the component's value; None when it is empty. Raises UsageError."""
        if not value:
            return None
        try:
            fields = json.loads(str(value))
            if fields.get("uploading"):
                raise UsageError(strings.text("file_drop.still_uploading"))
            start, end = float(fields.get("start") or 0), fields.get("end")
            end_seconds = math.inf if end is None else float(end)
            if not 0 <= start < end_seconds or (end is not None and math.isinf(end_seconds)):
                raise UsageError(strings.text("file_drop.no_span"))
            drawn = str(fields.get("mask") or "").partition("base64,")[2]
            mask = base64.b64decode(drawn, validate=True)
            return cls(str(fields["token"]), TimeRange.of(start, end=end_seconds), mask)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise UsageError(strings.text("file_drop.choose_again")) from None
