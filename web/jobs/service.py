"""What the tabs beside the live one share: the visitors' files, the two lines of jobs, the pictures of layers."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import models
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings

from . import file_inspection, tasks
from .file_inspection import InspectionLimits
from .queue import Job, JobQueue, Turn
from .thumbnails import Thumbnails
from .uploads import Upload, Uploads
from .visitors import Visitors

if TYPE_CHECKING:
    import gradio as gr

    from streamdream.dream.dreamer import Dreamer

    from ..core.state import AppState

BACKGROUND = "thumbnails"
"""Who takes turns for pictures of layers."""
MAX_VIDEOS, MAX_STILLS = 16, 32
MAX_PER_VISITOR = 2
VIDEO_SECONDS, STILL_SECONDS = 3600.0, 300.0
"""A job that has taken longer ends when another visitor waits."""
SHARED_VIDEO_SECONDS = 600.0
"""The same for a video when a visitor of another address waits."""
SWEEP_SECONDS = 30.0
"""Between two looks for what nobody needs any more."""
GRACE_SECONDS = 3.0
"""So long after its page has gone a visitor is forgotten."""


class JobService:
    """Made once by ``server.app``. Keeps everything in the folder of ``app_state`` and by visitor: a Gradio session."""

    def __init__(self, app_state: AppState, clock: Callable[[], float] = time.monotonic) -> None:
        web = app_state.web
        self.app_state = app_state
        self.uploads = Uploads(
            app_state.folder / "uploads",
            InspectionLimits(web.upload_mb, web.upload_seconds, web.upload_pixels),
            clock=clock,
        )
        self.videos = JobQueue("videos", app_state.folder / "videos", MAX_VIDEOS, MAX_PER_VISITOR, VIDEO_SECONDS,
                           SHARED_VIDEO_SECONDS, clock=clock)
        self.stills = JobQueue("stills", app_state.folder / "stills", MAX_STILLS, MAX_PER_VISITOR, STILL_SECONDS,
                           clock=clock)
        self.thumbnails = Thumbnails(app_state.stream, lambda: app_state.device_slot(BACKGROUND), self._is_busy)
        """Of all tabs: what sets the layer everywhere asks them."""
        self._visitors, self._clock = Visitors(clock), clock
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_often, name="streamdream-sweeper", daemon=True)
        self._sweeper.start()

    def _is_busy(self) -> bool:
        """Does somebody want the device for something better than pictures of layers?"""
        return bool(self.app_state.active_sessions) or self.videos.is_busy or self.stills.is_busy

    def find_job(self, token: str) -> Job | None:
        return self.videos.get(token) or self.stills.get(token)

    def dream_settings(self, values: dict[str, Any], files: dict[str, Upload | None], model: str) -> DreamSettings:
        """Of a form and the visitor's files for guide, style and mask. Raises UsageError in one line."""
        from streamdream.ascent import objectives

        dream = DreamSettings(**{**values, **{role: str(file.path) for role, file in files.items() if file}})
        if model == self.app_state.stream.model:
            self.app_state.check(replace(dream, guide="", style="", mask=""))
        objectives.from_settings(dream, models.get(model))
        return dream

    def dreamer_of(self, model: str, field_height: int) -> tasks.MakeDreamer:
        """Makes a dreamer for one job, when the job begins."""
        def make() -> Dreamer:
            if model == self.app_state.stream.model:
                return self.app_state.dreamer(field_height=field_height)
            from streamdream.dream.build import build_dreamer

            return build_dreamer(replace(self.app_state.stream, model=model, field_height=field_height))

        return make

    def start(self, line: JobQueue, visitor: str, title: str, do: Callable[[Job, Turn], None]) -> Job:
        """A job whose work is given turns on the device of its own. Raises UsageError when the line is full."""
        def run(job: Job) -> None:
            client_id = f"job {job.token}"
            try:
                do(job, lambda: self.app_state.device_slot(client_id))
            finally:
                self.app_state.release(client_id)

        return line.submit(visitor, title, run, self._visitors.address(visitor))

    def touch(self, request: gr.Request) -> str:
        """Who the visitor is: their Gradio session, which is there now."""
        visitor = str(request.session_hash or "")
        if not visitor:
            raise UsageError("open the page itself")
        self._visitors.seen(visitor, request.client.host if request.client else "")
        self.uploads.seen(visitor)
        return visitor

    def address(self, visitor: str) -> str:
        """Where they are; "" when it is not known."""
        return self._visitors.address(visitor)

    def fetched(self, job: Job) -> None:
        """Its visitor has come for the result."""
        self._visitors.seen(job.visitor)
        self.uploads.seen(job.visitor)

    def sweep(self) -> None:
        """Let go what nobody needs any more. Who has a job, or what one made, is here."""
        busy = self.videos.visitors() | self.stills.visitors()
        for visitor in busy:
            self.uploads.seen(visitor)
        for visitor in self._visitors.expired(busy):
            self.forget(visitor)
        for kept in (self.uploads, self.videos, self.stills):
            kept.sweep()

    def _sweep_often(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            self.sweep()

    def on_unload(self, session: str | None) -> None:
        """Their page was closed, or lost its connection for a moment: who is not seen again soon, is forgotten."""
        visitor, now = str(session or ""), self._clock()

        def decide() -> None:
            if self._visitors.seen_seconds(visitor) <= now:
                self.forget(visitor)

        timer = threading.Timer(GRACE_SECONDS, decide)
        timer.daemon = True
        timer.start()

    def forget(self, visitor: str) -> None:
        """A session has ended: nothing of it is kept."""
        for line in (self.videos, self.stills):
            line.forget(visitor)
        self.uploads.forget(visitor)
        self._visitors.forget(visitor)

    def close(self) -> None:
        self._closed.set()
        self.thumbnails.close()
        for line in (self.videos, self.stills):
            line.close()
        self.uploads.close()


def picture_address(model: str, number: int) -> str:
    """Of the picture of the network's layer of that number, relative to the page."""
    return f"layers/{model}/{number}"


def read_mask(jobs_service: JobService, visitor: str, data: bytes) -> Upload | None:
    """A mask that was drawn on the page, through the same door as a file."""
    if not data:
        return None
    drawn = jobs_service.uploads.take(data, "mask.png", jobs_service.address(visitor))
    return jobs_service.uploads.claim(drawn.token, visitor)


def claim(jobs_service: JobService, visitor: str, token: str, moving: bool) -> Upload:
    """The visitor's file of that token. Raises UsageError when it is gone, or not of that kind."""
    upload = jobs_service.uploads.claim(token, visitor)
    if upload.is_video is not moving:
        raise UsageError("that is " + ("a picture; a video is needed" if moving else "a video; a picture is needed"))
    return upload


VIDEO_KINDS, PICTURE_KINDS = (
    file_inspection.listed(file_inspection.CONTAINERS),
    file_inspection.listed(file_inspection.PICTURES),
)
SAVED_TYPES = {".mp4": "video/mp4", ".png": "image/png"}


def media_type(path: Path) -> str:
    return SAVED_TYPES[path.suffix]
