"""Components of the tabs: the card of a job, two pictures to compare.

All are our own HTML: Gradio's components for files keep a copy of each file in a folder that every visitor can read,
and that is not emptied when a session ends. All text of a visitor is escaped here.
"""
from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.resize import resize
from streamdream.media.tone_mapping import to_sdr_rgb
from streamdream.system.durations import describe_seconds

from ..core import assets

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
