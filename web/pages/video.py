"""The tab Video: a visitor's file, a preview of three frames, the dream as a job, playback and download."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamdream.errors import UsageError
from streamdream.media.input_container import TimeRange
from streamdream.settings import RenderSettings
from streamdream.system.durations import describe_seconds

from ..jobs import service, tasks
from ..jobs.queue import Job
from ..jobs.service import JobService
from ..jobs.uploads import Upload, upload_route
from . import components
from .file_drop import DroppedFile, file_drop
from .settings_panel import SettingsPanel, on_event

TICK_SECONDS = 0.5
WITHOUT = ("channel", "style_layers")
ENCODE = RenderSettings(sdr=True)
"""The result plays in browsers, few of which play HDR."""
IDLE = "Set the start and the end, preview three frames, then start. Sound and timing stay the same."


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``."""
    Page(jobs_service, panels).build()


def routes(jobs_service: JobService) -> list[Route]:
    """``POST /uploads``, for all tabs, and ``GET /results/TOKEN``: the result of the job with that token."""
    def result(request: Request) -> Response:  # in a thread, as it looks at the disk
        job = jobs_service.find_job(request.path_params["token"])
        if job is None or job.result is None or not job.result.exists():
            return PlainTextResponse("this result is no longer available", 404)
        jobs_service.fetched(job)
        disposition = "attachment" if request.query_params.get("save") else "inline"
        return FileResponse(job.result, media_type=service.media_type(job.result), content_disposition_type=disposition,
                            filename=components.saved_name(job.title, job.result.suffix),
                            headers={"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"})

    return [Route("/uploads", upload_route(jobs_service.uploads), methods=["POST"]),
            Route("/results/{token}", result, methods=["GET"])]


class Page:
    """Components and events of the tab. The state of a visitor is in their Gradio session, not here."""

    def __init__(self, jobs_service: JobService, panels: list[SettingsPanel]) -> None:
        self._jobs_service, self._panels = jobs_service, panels

    def build(self) -> None:
        web = self._jobs_service.app_state.web
        components.style()
        hint = (f"{service.VIDEO_KINDS}, up to {web.upload_mb:g} MB and "
                f"{describe_seconds(web.upload_seconds)}")
        components.root().unload(self._left)
        job = gr.State(None, delete_callback=self._discard)
        with gr.Row(elem_classes="sw-page"):
            with gr.Column(scale=3, elem_classes="sw-stage"):
                file = file_drop(
                    "Drop a video here or choose one",
                    moving=True,
                    trim=True,
                    most_mb=web.upload_mb,
                    note=hint,
                    elem_id="video-drop",
                )
                with gr.Row(elem_classes="sw-actions"):
                    tried = gr.Button("Preview", elem_id="video-try")
                    start = gr.Button("Start", variant="primary", elem_id="video-start")
                    cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="video-cancel")
                preview = components.plain_html("", elem_id="video-preview")
                shown = components.plain_html(
                    components.job_card(None, self._jobs_service.videos, IDLE), elem_id="video-job"
                )
            with gr.Column(scale=2, min_width=300, elem_classes="sw-panel"):
                panel = SettingsPanel(self._jobs_service, self._panels, without=WITHOUT)
        self._panel = panel
        timer = gr.Timer(TICK_SECONDS, active=False)
        inputs = [file, *panel.inputs]
        on_event(tried.click, self._try, inputs, [preview], concurrency_limit=16)
        on_event(start.click, self._start, [job, *inputs], [shown, job, timer, start, cancel], scroll_to_output=True)
        on_event(timer.tick, self._tick, [job], [timer, shown, start, cancel], trigger_mode="once",
                 concurrency_limit=16)
        on_event(cancel.click, self._cancel, [job], [shown])
        on_event(file.clear, lambda: "", [], [preview])
        on_event(file.upload, self._panel.keep, [file], [])

    def _file(self, dropped: DroppedFile | None, visitor: str) -> tuple[Upload, TimeRange]:
        if dropped is None:
            raise UsageError("choose a video first")
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

    def _start(self, request: gr.Request, old: Job | None, file: str, *values: Any) -> tuple[Any, ...]:
        visitor = self._jobs_service.touch(request)
        upload, span = self._file(DroppedFile.parse(file), visitor)
        chosen = self._panel.read(values, visitor)
        make = self._jobs_service.dreamer_of(chosen.model, chosen.field_height)
        names = self._jobs_service.uploads.names(visitor)
        if old is not None:
            self._jobs_service.videos.discard(old)
        job = self._jobs_service.start(
            self._jobs_service.videos,
            visitor,
            upload.name,
            lambda job, device_slot: tasks.render_video(job, upload, span, chosen.dream, ENCODE, make,
                                                        device_slot, names),
        )
        card, *buttons = self._show(job)
        return card, job, gr.Timer(active=True), *buttons

    def _tick(self, request: gr.Request, job: Job | None) -> tuple[Any, ...]:
        self._jobs_service.touch(request)
        return gr.Timer(active=job is not None and not job.finished), *self._show(job)

    def _show(self, job: Job | None) -> tuple[Any, ...]:
        """Return the card, and updates of the two buttons."""
        running = job is not None and not job.finished
        if job is not None and job.state == "done":
            card = components.result_video(job, job.title)
        else:
            card = components.job_card(job, self._jobs_service.videos, IDLE)
        return card, gr.update(interactive=not running), gr.update(visible=running)

    def _cancel(self, job: Job | None) -> str:
        if job is not None:
            self._jobs_service.videos.cancel(job)
        return "" if job is None else components.job_card(job, self._jobs_service.videos, IDLE)

    def _left(self, request: gr.Request) -> None:
        self._jobs_service.on_unload(request.session_hash)

    def _discard(self, job: Job | None) -> None:
        if job is not None:
            self._jobs_service.videos.discard(job)


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
