"""The file drop: where a visitor puts a video or a picture, trims it, or draws a mask on it."""
from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from html import escape
from typing import Any

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange

from ..core import assets
from ..jobs import file_inspection


def file_drop(label: str, *, moving: bool = False, trim: bool = False, mask: bool = False, most_mb: float = 200,
         note: str = "", elem_id: str = "") -> Any:
    """Make a ``gr.HTML`` to drop a file on. ``DroppedFile.parse`` reads its value; events: ``upload``, ``clear``."""
    import gradio as gr

    suffixes = file_inspection.UPLOADABLE_VIDEOS if moving else file_inspection.UPLOADABLE_PICTURES
    accept = ",".join([*suffixes, "video/*" if moving else "image/*"])
    looks = ('<video class="sw-drop-video" controls playsinline preload="metadata" hidden></video>'
             '<img class="sw-drop-image" alt="" hidden>' if moving else  # a .gif
             '<div class="sw-drop-canvas-on"><img class="sw-drop-image" alt="" hidden>'
             + ('<canvas class="sw-drop-canvas" aria-label="Draw where to dream"></canvas>' if mask else "") + "</div>")
    template = f"""
<div class="sw-drop">
  <label class="sw-drop-zone" tabindex="-1">
    <input class="sw-drop-input" type="file" accept="{accept}" aria-label="{escape(label)}">
    <span class="sw-drop-label">{escape(label)}</span>
    <span class="sw-drop-hint">{escape(note or "Drop it here, paste it, or choose it")}</span>
  </label>
  <div class="sw-drop-preview" hidden>
    {looks}
    <div class="sw-drop-line"><span class="sw-drop-name"></span><span class="sw-drop-note"></span>
      <button class="sw-drop-remove" type="button" aria-label="Remove {escape(label)}">Remove</button></div>
    <progress class="sw-drop-bar" max="1" value="0" aria-label="Upload" hidden></progress>
    {_TRIM if trim else ""}{_TOOLS if mask else ""}
  </div>
  <p class="sw-drop-problem" role="alert" hidden></p>
</div>"""
    return gr.HTML(value="", html_template=template, js_on_load=assets.text("file_drop.js"), apply_default_css=False,
                   elem_id=elem_id or None, elem_classes=["sw-flat"], max_mb=most_mb, is_video=moving)


_TRIM = """<div class="sw-drop-trim" hidden>
  <div class="sw-drop-track"><input class="sw-drop-first" type="range" min="0" step="0.05" aria-label="Start">
    <input class="sw-drop-last" type="range" min="0" step="0.05" aria-label="End"></div>
  <output class="sw-drop-span"></output></div>"""
_TOOLS = """<div class="sw-drop-tools" hidden>
  <span>Draw where to dream</span>
  <label>Brush <input class="sw-drop-brush" type="range" min="1" max="30" value="9" aria-label="Brush size"></label>
  <label><input class="sw-drop-erase" type="checkbox"> Erase</label>
  <button class="sw-drop-clear-mask" type="button">Clear drawing</button></div>"""


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
            start, end = float(fields.get("start") or 0), fields.get("end")
            end_seconds = math.inf if end is None else float(end)
            if not 0 <= start < end_seconds or (end is not None and math.isinf(end_seconds)):
                raise UsageError("the end must be after the start")
            drawn = str(fields.get("mask") or "").partition("base64,")[2]
            mask = base64.b64decode(drawn, validate=True)
            return cls(str(fields["token"]), TimeRange.of(start, end=end_seconds), mask)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError("choose the file again") from None
