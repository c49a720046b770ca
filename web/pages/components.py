"""Components of the tabs: a file drop, the card of a job, two pictures to compare.

All are our own HTML: Gradio's components for files keep a copy of each file in a folder that every visitor can read,
and that is not emptied when a session ends. All text of a visitor is escaped here.
"""
from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange
from streamdream.media.opencv import cv2
from streamdream.media.resize import resize
from streamdream.media.tone_mapping import to_sdr_rgb
from streamdream.system.durations import describe_seconds

from ..core import assets
from ..jobs import file_inspection

if TYPE_CHECKING:
    from ..jobs.queue import Job, JobQueue

PREVIEW_PIXELS = 480 * 270
"""Pixels of a preview."""
PREVIEW_QUALITY = 80


def root() -> Any:
    """Return the ``gr.Blocks`` that is being built, for events of the whole page."""
    from gradio.context import Context

    return Context.root_block


def style() -> Any:
    """Make the link to the style sheet, once for each tab: tabs are built when they are first opened."""
    import gradio as gr

    link = f'<link rel="stylesheet" href="{assets.url("pages.css")}">'
    return gr.HTML("", html_template=link, elem_classes="sw-style", js_on_load=None)


def plain_html(value: str, js: str | None = None, elem_id: str = "", elem_classes: Sequence[str] = ()) -> Any:
    """Make a ``gr.HTML`` without borders and padding."""
    import gradio as gr

    return gr.HTML(value, js_on_load=js, apply_default_css=False, elem_id=elem_id or None,
                   elem_classes=["sw-flat", *elem_classes])


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


def to_data_uri(picture: NDArray[np.uint8], pixels: int = PREVIEW_PIXELS) -> str:
    """Return a small copy of a picture as a data URI, so that no file is needed."""
    scale = min(1.0, math.sqrt(pixels / (picture.shape[0] * picture.shape[1])))
    small = resize(picture, max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    ok, data = cv2().imencode(".jpg", small[..., ::-1], [cv2().IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode() if ok else ""


def job_card(job: Job | None, jobs: JobQueue, idle: str, unit: str = "frames") -> str:
    """Return the HTML of a job: its position in the queue, its progress and preview, or how it ended."""
    if job is None or job.state == "cancelled":
        return _card("idle", f"<p>{escape(idle if job is None else 'Cancelled. The partial output was removed.')}</p>")
    if job.state == "failed":
        return _card("failed", f'<p role="alert">{escape(sentence(job.error))}</p>')
    seen = '<div class="sw-frame sw-frame-empty" aria-hidden="true"></div>' if job.state == "running" else ""
    if job.picture is not None:
        seen = f'<img class="sw-frame" alt="The latest frame" src="{to_data_uri(to_sdr_rgb(job.picture))}">'
    bar = f'<progress max="1" value="{job.share:.4f}" aria-label="Progress"></progress>'
    return _card(job.state, f'{seen}<div class="sw-status"><strong>{escape(_headline(job, jobs))}</strong>'
                            f"<span>{escape(_details(job, jobs, unit))}</span></div>{bar}")


def _card(state: str, inner: str) -> str:
    live = "off" if state == "running" else "polite"  # else screen readers read each percent
    return f'<div class="sw-card sw-card-{state}" aria-live="{live}">{inner}</div>'


def _headline(job: Job, jobs: JobQueue) -> str:
    if job.state == "done":
        return "Done"
    if job.state == "waiting":
        before = jobs.position(job)
        return "Next in the queue" if before <= 1 else f"{before} ahead of you"
    return f"{100 * job.share:.0f} %" if job.done and job.total else "Loading"


def _details(job: Job, jobs: JobQueue, unit: str) -> str:
    if job.state == "waiting":
        ahead = jobs.ahead_seconds()
        return "Another job is running" + (f", about {describe_seconds(ahead)} left" if ahead is not None else "")
    left, spare = job.left_seconds, jobs.spare_seconds(job)
    parts = [f"{job.done} of {job.total} {unit}" if job.total else f"{job.done} {unit}" if job.done else "",
             f"{describe_seconds(left)} left" if left is not None else "",
             f"stops in about {describe_seconds(max(0, spare))} because others are waiting" if spare < math.inf else ""]
    return ", ".join(part for part in parts if part)


def result_video(job: Job, name: str) -> str:
    """Return a player of the finished video, and a link to download it."""
    source = f"results/{job.token}"
    return _card("done", f'<video class="sw-result" src="{source}" controls playsinline loop></video>'
                         f'<div class="sw-status"><strong>Done</strong><span>{escape(name)}</span></div>'
                         f"{_save(source, saved_name(name, '.mp4'))}{_notes(job)}")


def result_picture(job: Job, before: NDArray[np.uint8], name: str) -> str:
    """Return the finished picture, to compare with ``before``, and a link to download it."""
    source = f"results/{job.token}"
    return _card("done", compare(to_data_uri(before, 1280 * 960), source)
                 + f'<div class="sw-status"><strong>Done</strong><span>{escape(name)}</span></div>'
                 + _save(source, saved_name(name, ".png")) + _notes(job))


def _notes(job: Job) -> str:
    notes = "".join(f"<li>{escape(sentence(warning))}</li>" for warning in job.warnings)
    return f'<ul class="sw-notes">{notes}</ul>' if notes else ""


def compare(before: str, after: str) -> str:
    """Return two pictures of one size, one over the other, with a slider that moves the border between them."""
    return ('<div class="sw-compare" style="--cut:50%">'
            f'<img alt="The dream" src="{after}"><img class="sw-before" alt="The original" src="{before}">'
            '<input type="range" min="0" max="100" value="50" step="0.5" aria-label="Compare: original and dream">'
            '</div>')


COMPARE_JS = """element.addEventListener("input", (event) => {
  if (event.target.type === "range") event.target.parentNode.style.setProperty("--cut", event.target.value + "%");
});"""


def preview_strip(pictures: Sequence[tuple[str, NDArray[np.uint8]]], count: int) -> str:
    """Return captioned pictures side by side, with placeholders up to ``count``."""
    cells = [
        f'<figure><img alt="{escape(name)}" src="{to_data_uri(picture)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, picture in pictures
    ]
    cells += ['<figure><div class="sw-frame-empty" aria-hidden="true"></div><figcaption>…</figcaption></figure>'
              ] * max(0, count - len(cells))
    return f'<div class="sw-strip" aria-live="polite">{"".join(cells)}</div>'


def _save(source: str, name: str) -> str:
    return f'<a class="sw-save" href="{source}?save=1" download="{escape(name)}">Download</a>'


def saved_name(name: str, suffix: str) -> str:
    """Return a file name like ``holiday-dream.mp4``: letters, digits and dashes of the visitor's name, and a suffix."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else " " for letter in Path(name).stem)
    return "-".join([*stem.split(), "dream"])[-80:] + suffix


@cache
def one_pixel() -> bytes:
    """Return a PNG of one transparent pixel."""
    return bytes(cv2().imencode(".png", np.zeros((1, 1, 4), np.uint8))[1])


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
