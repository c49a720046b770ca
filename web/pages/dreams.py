"""The tab Dreams: the visitor's videos and pictures, running and kept; and the list of them that other tabs show, too.

``assets/dreams.js`` asks the routes here again and again, so a reload or a lost network changes nothing.
"""
from __future__ import annotations

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..core import assets
from ..jobs import previews, service
from ..jobs.job import Job
from ..jobs.request import JobRequest
from ..jobs.service import JobService
from ..jobs.upload import MEDIA_TYPES
from . import components
from .settings_panel import SettingsPanel

MAX_LINKED = 20
"""Dreams of others that one page may ask for, by their tokens."""
PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
GONE = "this dream is no longer here"


def build(jobs_service: JobService, panels: list[SettingsPanel]) -> None:
    """Build the tab within its ``gr.Tab``."""
    components.style()
    dreams_list("")


def dreams_list(kind: str) -> Any:
    """Make the list of the visitor's dreams: all of them, or with a ``kind`` those that run, and the newest one."""
    return components.plain_html(f'<div class="sw-dreams" data-kind="{kind}"></div>', assets.text("dreams_in_tab.js"),
                                 f"{kind or 'all'}-dreams")


def started_signal(kind: str) -> Any:
    """Make the output of an event that starts a job: its value, from ``started``, makes the list show the job."""
    return components.plain_html("", assets.text("dream_started.js"), f"{kind}-started")


def started(job: Job) -> str:
    return f'<i data-dream="{job.token}"></i>'


def routes(jobs_service: JobService) -> list[Route]:
    """``GET /dreams``: the visitor's, and with ``with=TOKEN,TOKEN`` those of links. ``/dreams/TOKEN/preview`` and
    ``/original``: its pictures, ``/results/TOKEN``: its result, for all who have the token. ``DELETE /dreams/TOKEN``:
    cancel and forget it, for its visitor.
    """
    def listing(request: Request) -> Response:  # in a thread, as all of these: they look at the disk
        mine = jobs_service.jobs_of(jobs_service.visitor_of(request))
        tokens = request.query_params.get("with", "").split(",")[:MAX_LINKED]
        linked = [job for job in map(jobs_service.find_job, tokens) if job and job.request and job not in mine]
        dreams = [describe(jobs_service, job, job in mine) for job in [*mine, *linked]]
        return JSONResponse({"dreams": dreams, "keep_seconds": jobs_service.keep_seconds}, headers=PRIVATE)

    def preview(request: Request) -> Response:
        job = jobs_service.find_job(request.path_params["token"])
        data = previews.current(job) if job else b""
        return Response(data, media_type="image/jpeg", headers=PRIVATE) if data else PlainTextResponse(GONE, 404)

    def original(request: Request) -> Response:
        job = jobs_service.find_job(request.path_params["token"])
        path = job.request.input_path(job.folder) if job and job.request else None
        is_own = job is not None and job.visitor == jobs_service.visitor_of(request)
        # a video is as it was sent, whole and with what a camera notes in it, so a link does not lead to it
        if path is None or not path.is_file() or not (is_own or path.suffix == ".png"):
            return PlainTextResponse(GONE, 404)
        return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"), headers=PRIVATE)

    def result(request: Request) -> Response:
        job = jobs_service.find_job(request.path_params["token"])
        path = job.result if job else None
        if job is None or path is None or not path.exists():
            return PlainTextResponse(GONE, 404)
        disposition = "attachment" if request.query_params.get("save") else "inline"
        return FileResponse(path, media_type=service.media_type(path), content_disposition_type=disposition,
                            filename=components.saved_name(job.title, path.suffix), headers=PRIVATE)

    def delete(request: Request) -> Response:
        job = jobs_service.find_job(request.path_params["token"])
        if job is None or job.visitor != jobs_service.visitor_of(request):
            return PlainTextResponse(GONE, 404)
        jobs_service.queue_of(job).discard(job)
        return Response(status_code=204)

    return [Route("/dreams", listing, methods=["GET"]), Route("/dreams/{token}", delete, methods=["DELETE"]),
            Route("/dreams/{token}/preview", preview, methods=["GET"]),
            Route("/dreams/{token}/original", original, methods=["GET"]),
            Route("/results/{token}", result, methods=["GET"])]


def describe(jobs_service: JobService, job: Job, is_own: bool) -> dict[str, Any]:
    """Return what the page shows of a job that has a request."""
    assert job.request is not None
    queue, request, spare, result = jobs_service.queue_of(job), job.request, job.spare_seconds(job), job.result
    return {
        "token": job.token, "kind": request.kind, "name": job.title, "own": is_own, "state": job.state,
        "done": job.done, "total": job.total, "share": job.share, "left_seconds": job.left_seconds,
        "ahead": queue.position(job), "wait_seconds": queue.wait_seconds(job) if job.state == "waiting" else None,
        "spare_seconds": None if math.isinf(spare) else max(0.0, spare),
        "previews": job.previews, "error": components.sentence(job.error) if job.error else "",
        "warnings": [components.sentence(warning) for warning in (*request.notes, *job.warnings)],
        "submitted_at": job.submitted_at,
        "start_seconds": request.start_seconds, "settings": settings_of(request),
        "saved_name": components.saved_name(job.title, result.suffix) if result else "",
    }


def settings_of(request: JobRequest) -> dict[str, Any]:
    """Return the settings as the event ``streamdream:use`` of the page takes them."""
    return {**request.dream, "model": request.model, "field_height": request.field_height}
