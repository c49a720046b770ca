"""The tab Video: a visitor's file, a preview of three frames, and the dream as a job, which ``dreams`` shows."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from starlette.routing import Route

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange
from streamdream.system.durations import describe_seconds

from ..core import strings
from ..jobs import examples, service, tasks
from ..jobs.job import Job
from ..jobs.request import VIDEO, JobRequest
from ..jobs.service import JobService
from ..jobs.upload_routes import upload_routes
from ..jobs.uploads import Upload
from . import components, dreams
from .file_drop import DroppedFile, file_drop
from .settings_panel import SettingsPanel, on_event

TICK_SECONDS = 0.5
WITHOUT = ("channel", "style_layers")


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``."""
    Page(jobs_service, panels).build()


def routes(jobs_service: JobService) -> list[Route]:
    """The routes of uploads, for all tabs."""
    return upload_routes(jobs_service)


class Page:
    """Components and events of the tab. The state of a visitor is in their Gradio session, not here."""

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel]) -> None:
        self._jobs_service, self._panels = jobs_service, panels

    def build(self) -> None:
        web = self._jobs_service.app_state.web
        components.style()
        note = strings.text("video.note", kinds=service.VIDEO_KINDS, size=f"{web.upload_mb:g}",
                            time=describe_seconds(web.upload_seconds))
        with gr.Row(elem_classes="sw-page"):
            with gr.Column(scale=3, elem_classes="sw-stage"):
                file = file_drop(
                    strings.text("video.drop"),
                    moving=True,
                    trim=True,
                    most_mb=web.upload_mb,
                    note=note,
                    elem_id="video-drop",
                    examples=examples.offered(True, self._jobs_service.uploads.inspection_limits),
                )
                with gr.Row(elem_classes="sw-actions"):
                    tried = gr.Button(strings.text("video.preview"), elem_id="video-try")
                    start = gr.Button(strings.text("video.start"), variant="primary", elem_id="video-start")
                preview = components.plain_html("", elem_id="video-preview")
                started = dreams.started_signal(VIDEO)
                dreams.dreams_list(VIDEO)
            with gr.Column(scale=2, min_width=300, elem_classes="sw-panel"):
                panel = SettingsPanel(self._jobs_service, self._panels, without=WITHOUT)
        self._panel = panel
        inputs = [file, *panel.inputs]
        on_event(tried.click, self._try, inputs, [preview], concurrency_limit=16)
        on_event(start.click, self._start, inputs, [started])
        on_event(file.clear, lambda: "", [], [preview])
        on_event(file.upload, self._panel.keep, [file], [])

    def _file(self, dropped: DroppedFile | None, visitor: str) -> tuple[Upload, TimeRange]:
        if dropped is None:
            raise UsageError(strings.text("video.missing"))
        return service.claim(self._jobs_service, visitor, dropped.token, True), dropped.span

    def _try(self, request: gr.Request, file: str, *values: Any) -> Iterator[str]:
        visitor = self._jobs_service.touch(request)
        upload, span = self._file(DroppedFile.parse(file), visitor)
        chosen = self._panel.read(values, visitor)
        make = self._jobs_service.dreamer_of(chosen.model, chosen.field_height)
        job = self._jobs_service.start(
            self._jobs_service.stills,
            visitor,
            upload.name,
            lambda job, device_slot: tasks.preview_video(job, upload, span, chosen.dream, make, device_slot),
        )
        try:
            yield from _watch(job)
        finally:
            self._jobs_service.stills.discard(job)

    def _start(self, request: gr.Request, file: str, *values: Any) -> str:
        visitor = self._jobs_service.touch(request)
        upload, span = self._file(DroppedFile.parse(file), visitor)
        chosen = self._panel.read(values, visitor)
        asked = JobRequest.of(upload, chosen.model, chosen.field_height, chosen.dream, span, chosen.files)
        return dreams.started(self._jobs_service.dream(visitor, upload, asked, chosen.files))


def _watch(job: Job) -> Iterator[str]:
    """Yield the preview as its frames are finished."""
    shown = -1
    while not job.finished:
        job.changed.wait(TICK_SECONDS)
        job.changed.clear()
        frames = list(job.answer or ())
        if len(frames) != shown:
            shown = len(frames)
            yield _strip(frames)
    if job.state == "failed":
        raise UsageError(job.error)
    if job.state == "done":
        yield _strip(list(job.answer or ()))


def _strip(frames: list[Any]) -> str:
    return components.preview_strip(
        [(f"{seconds // 60:.0f}:{seconds % 60:04.1f}", dream) for seconds, _, dream in frames], len(tasks.PREVIEWS)
    )
