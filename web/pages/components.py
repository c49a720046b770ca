"""Components of the tabs.

All are our own HTML: Gradio's components for files keep a copy of each file in a folder that every visitor can read,
and that is not emptied when a session ends. All text of a visitor is escaped here.
"""
from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2

from ..core import assets
from ..jobs import previews


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


def to_data_uri(picture: NDArray[np.uint8]) -> str:
    """Return a small copy of a picture as a data URI, so that no file is needed."""
    return "data:image/jpeg;base64," + base64.b64encode(previews.encode(picture)).decode()


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
