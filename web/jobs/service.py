"""What the tabs other than Live share: uploads, the two job queues, pictures of layers and channels."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import models
from streamdream.errors import StreamdreamError, UsageError
from streamdream.settings import DreamSettings

from ..core import limits
from . import file_inspection, tasks
from .file_inspection import InspectionLimits
from .queue import DeviceSlot, Job, JobQueue
from .sheet_maker import SheetMaker
from .thumbnails import Thumbnails
from .uploads import Upload, Uploads
from .visitors import Visitors

if TYPE_CHECKING:
    import gradio as gr

    from streamdream.dream.dreamer import Dreamer

    from ..core.state import AppState

THUMBNAILS, CHANNELS = "thumbnails", "channels"
"""Clients of the device that make pictures of layers and of channels in the background."""
SWEEP_SECONDS = 30.0
"""Between two searches for what can be removed."""
GRACE_SECONDS = 3.0
"""A visitor whose page was closed is forgotten after so long."""


class JobService:
    """Made once by ``server.app``. Keeps everything in the folder of ``app_state`` and by visitor: a Gradio session."""

    def __init__(self, app_state: AppState, clock: Callable[[], float] = time.monotonic) -> None:
        web = app_state.web
        self.app_state = app_state
        self.uploads = Uploads(
            app_state.folder / "uploads",
            InspectionLimits(web.upload_mb, web.upload_seconds, web.upload_pixels),
            clock=clock,
            counts=app_state.counts,
        )
        self.videos = JobQueue("videos", app_state.folder / "videos", limits.MAX_VIDEOS,
                               max_seconds=limits.VIDEO_SECONDS, max_shared_seconds=limits.SHARED_VIDEO_SECONDS,
                               clock=clock, counts=app_state.counts)
        self.stills = JobQueue("stills", app_state.folder / "stills", limits.MAX_STILLS,
                               max_seconds=limits.STILL_SECONDS, clock=clock, counts=app_state.counts)
        self.thumbnails = Thumbnails(app_state.stream, lambda: app_state.device_slot(THUMBNAILS), self._is_busy)
        self.sheets = SheetMaker(app_state.stream, lambda: app_state.device_slot(CHANNELS), self._is_busy)
        """Both are shared by all tabs."""
        self._visitors, self._clock = Visitors(clock), clock
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
        """Submit a job; ``work`` gets device slots of its own. Raises UsageError when the queue is full."""
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

        return queue.submit(visitor, title, run, self._visitors.address(visitor))

    def touch(self, request: gr.Request) -> str:
        """Return the visitor of a request, which is their Gradio session, and record that they are here.

        Raises UsageError for a request without a session.
        """
        visitor = str(request.session_hash or "")
        if not visitor:
            raise UsageError("open the page itself")
        self._visitors.seen(visitor, request.client.host if request.client else "")
        self.uploads.seen(visitor)
        return visitor

    def address(self, visitor: str) -> str:
        """Return the address of a visitor, or "" when it is not known."""
        return self._visitors.address(visitor)

    def fetched(self, job: Job) -> None:
        """Record that the visitor has fetched the result."""
        self._visitors.seen(job.visitor)
        self.uploads.seen(job.visitor)

    def sweep(self) -> None:
        """Remove what expired. Visitors with a job or a result count as present."""
        busy = self.videos.visitors() | self.stills.visitors()
        for visitor in busy:
            self.uploads.seen(visitor)
        for visitor in self._visitors.expired(busy):
            self.forget(visitor)
        for part in (self.uploads, self.videos, self.stills):
            part.sweep()

    def _sweep_often(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            self.sweep()

    def on_unload(self, session: str | None) -> None:
        """Forget a visitor whose page was closed, unless they are seen again soon: the connection may only be lost."""
        visitor, now = str(session or ""), self._clock()

        def forget_if_gone() -> None:
            if self._visitors.seen_seconds(visitor) <= now:
                self.forget(visitor)

        timer = threading.Timer(GRACE_SECONDS, forget_if_gone)
        timer.daemon = True
        timer.start()

    def forget(self, visitor: str) -> None:
        """Remove everything of a visitor."""
        for queue in (self.videos, self.stills):
            queue.forget(visitor)
        self.uploads.forget(visitor)
        self._visitors.forget(visitor)

    def close(self) -> None:
        self._closed.set()
        self.thumbnails.close()
        self.sheets.close()
        for queue in (self.videos, self.stills):
            queue.close()
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
