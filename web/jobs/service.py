"""What the tabs other than Live share: uploads, the two job queues, pictures of layers and channels."""
from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import models
from streamdream.errors import StreamdreamError, UsageError
from streamdream.settings import DreamSettings

from ..auth import visitor_cookie
from ..core import limits
from . import file_inspection, job_store, retention, tasks
from .device_slots import DeviceSlot
from .file_inspection import InspectionLimits
from .job import Job, Work
from .queue import CLOSE_SECONDS, JobQueue
from .request import VIDEO, JobRequest
from .sheet_maker import SheetMaker
from .thumbnails import Thumbnails
from .uploads import Upload, Uploads
from .visitors import Visitors

if TYPE_CHECKING:
    import gradio as gr
    from starlette.requests import Request

    from streamdream.dream.dreamer import Dreamer

    from ..core.state import AppState

log = logging.getLogger(__name__)
THUMBNAILS, CHANNELS = "thumbnails", "channels"
"""Clients of the device that make pictures of layers and of channels in the background."""
SWEEP_SECONDS, SYNCHRONIZE_SECONDS = 30.0, 1.0
"""Between two searches for what can be removed, and for what other replicas have done."""


class JobService:
    """Made once by ``server.app``. Keeps everything by visitor, in folders that ``app_state`` names.

    A visitor is a browser, by its cookie (``auth/visitor_cookie.py``): what it has here outlives the page, and with
    ``--keep-hours`` also the server.
    """

    def __init__(self, app_state: AppState, clock: Callable[[], float] = time.monotonic) -> None:
        web, folder, keeps = app_state.web, app_state.kept_folder, app_state.keeps
        self.app_state = app_state
        self.keep_seconds = max(3600 * web.keep_hours, limits.EXPIRE_SECONDS)
        """How long uploads and results are kept."""
        self.uploads = Uploads(
            folder / "uploads",
            InspectionLimits(web.upload_mb, web.upload_seconds, web.upload_pixels),
            clock=clock,
            counts=app_state.counts,
            keep_seconds=self.keep_seconds,
            keeps=keeps,
            is_shared=app_state.replica is not None,
        )
        kept: dict[str, Any] = {"keep_seconds": self.keep_seconds, "clock": clock, "counts": app_state.counts,
                                "work_of": self._work_of, "keeps": keeps, "replica": app_state.replica}
        self.videos = JobQueue("videos", folder / "videos", limits.MAX_VIDEOS, max_seconds=limits.VIDEO_SECONDS,
                               max_shared_seconds=limits.SHARED_VIDEO_SECONDS,
                               workers=limits.CLUSTER_VIDEOS if web.cluster else 1, **kept)
        self.stills = JobQueue("stills", folder / "stills", limits.MAX_STILLS, max_seconds=limits.STILL_SECONDS,
                               private_folder=app_state.folder / "previews", **kept)
        self.thumbnails = Thumbnails(app_state.stream, lambda: app_state.device_slot(THUMBNAILS), self._is_busy)
        self.sheets = SheetMaker(app_state.stream, lambda: app_state.device_slot(CHANNELS), self._is_busy)
        """Both are shared by all tabs."""
        self._visitors = Visitors()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_often, name="streamdream-sweeper", daemon=True)
        self._sweeper.start()

    def _is_busy(self) -> bool:
        """Return whether a visitor uses the device; thumbnails then make longer pauses."""
        return bool(self.app_state.active_sessions) or self.videos.is_busy or self.stills.is_busy

    def find_job(self, token: str) -> Job | None:
        return self.videos.get(token) or self.stills.get(token)

    def dream_settings(self, values: dict[str, Any], files: dict[str, Upload | None], model: str) -> DreamSettings:
        """Make settings of a form and the visitor's files for guide, style and mask. Raises UsageError."""
        from streamdream.ascent import objectives

        dream = DreamSettings(**{**values, **{role: str(file.path) for role, file in files.items() if file}})
        if model == self.app_state.stream.model:
            self.app_state.check(replace(dream, guide="", style="", mask=""))
        objectives.from_settings(dream, models.get(model))
        return dream

    def dreamer_of(self, model: str, field_height: int) -> tasks.MakeDreamer:
        """Return a function that makes a dreamer when the job begins."""
        def make() -> Dreamer:
            if model == self.app_state.stream.model:
                return self.app_state.dreamer(field_height=field_height)
            from streamdream.dream.build import build_dreamer

            return build_dreamer(replace(self.app_state.stream, model=model, field_height=field_height))

        return make

    def start(self, queue: JobQueue, visitor: str, title: str, work: Callable[[Job, DeviceSlot], None]) -> Job:
        """Submit work that nobody misses after a restart; it gets device slots of its own. Raises UsageError when the
        queue is full.
        """
        return queue.submit(visitor, title, self._with_device(work), self._visitors.address(visitor))

    def dream(self, visitor: str, upload: Upload, request: JobRequest, files: dict[str, Upload]) -> Job:
        """Submit a video or a picture; ``files`` are those of its settings. Of an impatient second click return the job
        of the first. Raises UsageError when the queue is full.
        """
        for same in self.jobs_of(visitor):
            if not same.finished and same.request == request and job_store.has_same_input(same, upload):
                return same
        for old in [job for job in self.jobs_of(visitor) if job.finished][limits.MAX_KEPT_PER_VISITOR - 1:]:
            self.queue_of(old).discard(old)
        queue = self.videos if request.kind == VIDEO else self.stills
        return queue.submit(visitor, upload.name, None, self._visitors.address(visitor), request,
                            request.files_of(upload, files))

    def _work_of(self, request: JobRequest) -> Work:
        task = (partial(tasks.render_video, cluster=self.app_state.web.cluster) if request.kind == VIDEO
                else tasks.dream_picture)
        make = self.dreamer_of(request.model, request.field_height)
        return self._with_device(lambda job, device_slot: task(job, self.app_state.stream, make, device_slot))

    def _with_device(self, work: Callable[[Job, DeviceSlot], None]) -> Work:
        def run(job: Job) -> None:
            client_id = f"job {job.token}"
            health = self.app_state.health
            try:
                work(job, lambda: self.app_state.device_slot(client_id))
                health.succeeded()
            except StreamdreamError:  # what the visitor chose, or their end
                raise
            except Exception:
                health.failed()
                raise
            finally:
                self.app_state.release(client_id)

        return run

    def jobs_of(self, visitor: str) -> list[Job]:
        """Return the visitor's videos and pictures, the newest first; no previews."""
        found = [job for queue in (self.videos, self.stills) for job in queue.jobs()
                 if visitor and job.visitor == visitor and job.request is not None and not job.stop.is_set()]
        return sorted(found, key=lambda job: job.submitted_at, reverse=True)

    def queue_of(self, job: Job) -> JobQueue:
        return self.videos if self.videos.get(job.token) is job else self.stills

    def visitor_of(self, request: gr.Request | Request) -> str:
        """Return the visitor of a request, and record that they are here; "" without a cookie or Gradio session."""
        visitor = visitor_cookie.visitor_of(request.cookies, str(getattr(request, "session_hash", None) or ""))
        if visitor:
            self._visitors.seen(visitor, request.client.host if request.client else "")
            self.uploads.seen(visitor)
        return visitor

    def touch(self, request: gr.Request) -> str:
        """As ``visitor_of``. Raises UsageError for a request without a visitor."""
        if visitor := self.visitor_of(request):
            return visitor
        raise UsageError("open the page itself")

    def address(self, visitor: str) -> str:
        """Return the address of a visitor, or "" when it is not known."""
        return self._visitors.address(visitor)

    def drain(self) -> None:
        """Begin no more videos and pictures: they wait for another replica, or the next server."""
        for queue in (self.videos, self.stills):
            queue.drain()

    def sweep(self) -> None:
        """Remove what expired, and the oldest results when all are too large."""
        self.uploads.synchronize()
        for part in (self.uploads, self.videos, self.stills):
            part.sweep()
        for job in retention.surplus([*self.videos.jobs(), *self.stills.jobs()], self.app_state.web.keep_gb * 1e9):
            self.queue_of(job).discard(job)
        if self.app_state.replica:
            self.app_state.replica.remove_abandoned({job.owner for job in (*self.videos.jobs(), *self.stills.jobs())})

    def _sweep_often(self) -> None:
        replica, failing = self.app_state.replica, ""
        pause_seconds = SYNCHRONIZE_SECONDS if replica else SWEEP_SECONDS
        for number in itertools.count(1):
            if self._closed.wait(pause_seconds):
                return
            try:
                for queue in (self.videos, self.stills):
                    queue.synchronize()
                if number % round(SWEEP_SECONDS / pause_seconds) == 0:
                    self.sweep()
                if failing:
                    log.info("%s can be read again", self.app_state.kept_folder)
                failing = ""
            except Exception as error:  # as of a disk that fails; the next one may succeed
                if failing != (failing := f"{type(error).__name__}: {error}"):
                    log.exception("%s cannot be read", self.app_state.kept_folder)

    def close(self) -> None:
        self._closed.set()
        self.thumbnails.close()
        self.sheets.close()
        until_seconds = time.monotonic() + CLOSE_SECONDS
        for queue in (self.videos, self.stills):
            queue.interrupt()
        for queue in (self.videos, self.stills):
            queue.close(until_seconds - time.monotonic())
        self.uploads.close()


def thumbnail_url(model: str, number: int) -> str:
    """Return the URL of a layer's thumbnail, relative to the page."""
    return f"layers/{model}/{number}"


def read_mask(jobs_service: JobService, visitor: str, data: bytes) -> Upload | None:
    """Inspect and claim a mask that was drawn on the page, as PNG; None if there is none. Raises UsageError."""
    if not data:
        return None
    drawn = jobs_service.uploads.take(data, "mask.png", jobs_service.address(visitor))
    return jobs_service.uploads.claim(drawn.token, visitor)


def claim(jobs_service: JobService, visitor: str, token: str, is_video: bool) -> Upload:
    """Return the visitor's file of that token. Raises UsageError when it is gone, or ``is_video`` is not true of it."""
    upload = jobs_service.uploads.claim(token, visitor)
    if upload.is_video is not is_video:
        raise UsageError(f"this file is {'a picture; a video' if is_video else 'a video; a picture'} is needed")
    return upload


VIDEO_KINDS, PICTURE_KINDS = (
    file_inspection.listed(file_inspection.UPLOADABLE_VIDEOS),
    file_inspection.listed(file_inspection.UPLOADABLE_PICTURES),
)
SAVED_TYPES = {".mp4": "video/mp4", ".png": "image/png"}


def media_type(path: Path) -> str:
    return SAVED_TYPES[path.suffix]
