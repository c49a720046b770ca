"""The tab Picture: one picture, dreamed with previews; a mask can be drawn on it."""
from __future__ import annotations

from typing import Any

import gradio as gr

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange

from ..core import strings
from ..jobs import examples, service
from ..jobs.request import PICTURE, JobRequest
from ..jobs.service import JobService
from . import components, dreams
from .file_drop import DroppedFile, file_drop
from .settings_panel import SettingsPanel, on_event

WITHOUT = ("channel", "style_layers", "keep", "warmup_steps", "flow", "trust", "cut", "consistency", "regrowth",
           "stillness")
"""Settings that only matter for several frames."""


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``."""
    Page(jobs_service, panels).build()


class Page:
    """Components and events of the tab. The state of a visitor is in their Gradio session, not here."""

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel]) -> None:
        self._jobs_service, self._panels = jobs_service, panels

    def build(self) -> None:
        web, limits = self._jobs_service.app_state.web, self._jobs_service.uploads.inspection_limits
        components.style()
        with gr.Row(elem_classes="sw-page"):
            with gr.Column(scale=3, elem_classes="sw-stage"):
                file = file_drop(
                    strings.text("picture.drop"), mask=True, most_mb=web.upload_mb, elem_id="picture-drop",
                    note=strings.text("picture.note", kinds=service.PICTURE_KINDS,
                                      size=f"{limits.picture_pixels / 1e6:.0f}"),
                    examples=examples.offered(False, limits))
                with gr.Row(elem_classes="sw-actions"):
                    start = gr.Button(strings.text("picture.start"), variant="primary", elem_id="picture-start")
                started = dreams.started_signal(PICTURE)
                dreams.dreams_list(PICTURE)
            with gr.Column(scale=2, min_width=300, elem_classes="sw-panel"):
                panel = SettingsPanel(self._jobs_service, self._panels, "still", WITHOUT)
        self._panel = panel
        on_event(start.click, self._start, [file, *panel.inputs], [started])
        on_event(file.upload, self._panel.keep, [file], [])

    def _start(self, request: gr.Request, file: str, *values: Any) -> str:
        visitor = self._jobs_service.touch(request)
        dropped = DroppedFile.parse(file)
        if dropped is None:
            raise UsageError(strings.text("picture.missing"))
        upload = service.claim(self._jobs_service, visitor, dropped.token, False)
        chosen = self._panel.read(values, visitor, dropped.mask)
        asked = JobRequest.of(upload, chosen.model, chosen.field_height, chosen.dream, TimeRange(), chosen.files)
        return dreams.started(self._jobs_service.dream(visitor, upload, asked, chosen.files))
