"""The tab Picture: one picture, dreamed with previews; a mask can be drawn on it."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from streamdream.errors import UsageError
from streamdream.media import images

from ..jobs import service, tasks
from ..jobs.queue import Job
from ..jobs.service import JobService
from . import components
from .file_drop import DroppedFile, file_drop
from .settings_panel import SettingsPanel, on_event

PREVIEW_SECONDS = 0.3
WITHOUT = ("channel", "style_layers", "keep", "warmup_steps", "flow", "trust", "cut")
"""Settings that only matter for several frames."""
IDLE = "Draw on the picture to dream only there. You can add a guide or a style picture in the settings."


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``."""
    Page(jobs_service, panels).build()


class Page:
    """Components and events of the tab. The state of a visitor is in their Gradio session, not here."""

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel]) -> None:
        self._jobs_service, self._panels = jobs_service, panels

    def build(self) -> None:
        web = self._jobs_service.app_state.web
        components.style()
        job = gr.State(None, delete_callback=self._discard)
        with gr.Row(elem_classes="sw-page"):
            with gr.Column(scale=3, elem_classes="sw-stage"):
                file = file_drop(
                    "Drop a picture here or choose one", mask=True, most_mb=web.upload_mb, elem_id="picture-drop",
                    note=f"{service.PICTURE_KINDS}, up to {web.upload_pixels / 1e6:.0f} megapixels")
                with gr.Row(elem_classes="sw-actions"):
                    start = gr.Button("Start", variant="primary", elem_id="picture-start")
                    cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="picture-cancel")
                shown = components.plain_html(
                    components.job_card(None, self._jobs_service.stills, IDLE), components.COMPARE_JS, "picture-job"
                )
            with gr.Column(scale=2, min_width=300, elem_classes="sw-panel"):
                panel = SettingsPanel(self._jobs_service, self._panels, "still", WITHOUT)
        self._panel = panel
        run = on_event(start.click, self._start, [job, file, *panel.inputs], [shown, job, start, cancel],
                       scroll_to_output=True)
        on_event(run.then, self._watch, [job], [shown, start, cancel], concurrency_limit=16)
        on_event(cancel.click, self._cancel, [job], [])
        on_event(file.upload, self._panel.keep, [file], [])

    def _start(self, request: gr.Request, old: Job | None, file: str, *values: Any) -> tuple[Any, ...]:
        visitor = self._jobs_service.touch(request)
        dropped = DroppedFile.parse(file)
        if dropped is None:
            raise UsageError("choose a picture first")
        upload = service.claim(self._jobs_service, visitor, dropped.token, False)
        chosen = self._panel.read(values, visitor, dropped.mask)
        make = self._jobs_service.dreamer_of(chosen.model, chosen.field_height)
        names = self._jobs_service.uploads.names(visitor)
        image = images.read_image(str(upload.path))
        if old is not None:
            self._jobs_service.stills.discard(old)
        job = self._jobs_service.start(
            self._jobs_service.stills,
            visitor,
            upload.name,
            lambda job, device_slot: tasks.dream_picture(job, image, chosen.dream, make, device_slot, names),
        )
        job.before, job.warnings = image, list(upload.facts.notes)
        card, *buttons = self._show(job)
        return card, job, *buttons

    def _watch(self, job: Job | None) -> Iterator[tuple[Any, ...]]:
        """Yield the card of the job until it ends."""
        while job is not None and not job.finished:
            job.changed.wait(PREVIEW_SECONDS)
            job.changed.clear()
            yield self._show(job)
        yield self._show(job)

    def _show(self, job: Job | None) -> tuple[Any, ...]:
        running = job is not None and not job.finished
        if job is not None and job.state == "done" and job.before is not None:
            card = components.result_picture(job, job.before, job.title)
        else:
            card = components.job_card(job, self._jobs_service.stills, IDLE, "steps")
        return card, gr.update(interactive=not running), gr.update(visible=running)

    def _cancel(self, job: Job | None) -> None:
        if job is not None:
            self._jobs_service.stills.cancel(job)

    def _discard(self, job: Job | None) -> None:
        if job is not None:
            self._jobs_service.stills.discard(job)
