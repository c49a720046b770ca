"""The tab Picture."""
from __future__ import annotations

import gradio as gr

from ..studio import Studio


def build(studio: Studio) -> None:
    gr.Markdown("Picture")
