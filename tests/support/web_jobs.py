"""What tests of jobs and uploads share: a clock that a test sets, work that ends when a test says so, real dreams."""
from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import av
from streamdream_web.jobs import tasks
from streamdream_web.jobs.job import Job, Work
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import VIDEO, JobRequest
from streamdream_web.jobs.upload import WHOLE_VIDEO, Upload

from streamdream import models
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings, StreamSettings
from support.waiting import until

TIMEOUT_SECONDS = 60
STREAM = StreamSettings(device="cpu", backend="eager", precision="fp32", seed=5)


class ManualClock:
    """A clock whose ``seconds`` a test sets."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class BlockedWork:
    """The work of jobs: it goes on until ``release`` is set. ``started`` has the titles of its jobs, in order."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started: list[str] = []
        self._checks = 0

    def __call__(self, job: Job) -> None:
        self.started.append(job.title)
        while not self.release.wait(0.005):
            job.check()
            self._checks += 1

    def wait_for_checks(self) -> None:
        """Wait until a running job has asked twice whether it has to end: the second time it saw what is now."""
        enough = self._checks + 2
        until(lambda: self._checks >= enough, TIMEOUT_SECONDS)


def wait_for(job: Job, *states: str) -> Job:
    """Wait until the job is in one of ``states``, or without any, until it has ended; return it."""
    until(lambda: job.state in states if states else job.finished, TIMEOUT_SECONDS, about=lambda: job.state)
    return job


def times_and_sound(path: Path) -> tuple[list[float], list[bytes]]:
    """Return the times of all pictures in seconds, sorted, and the packets of the sound."""
    with av.open(str(path)) as container:
        tick = float(container.streams.video[0].time_base or 0)
        packets = [packet for packet in container.demux() if packet.size]
        return (sorted(round((packet.pts or 0) * tick, 4) for packet in packets if packet.stream.type == "video"),
                [bytes(packet) for packet in packets if packet.stream.type == "audio"])


def work_of(backend: Backend) -> Callable[[JobRequest], Work]:
    """What a queue does with requests: as the page does it, on ``backend``."""
    def make(request: JobRequest) -> Work:
        task = tasks.render_video if request.kind == VIDEO else tasks.dream_picture
        return lambda job: task(
            job, STREAM, lambda: Dreamer(models.get(request.model), backend, request.field_height, STREAM.seed),
            nullcontext)

    return make


def submit(queue: JobQueue, upload: Upload, dream: DreamSettings, span: TimeRange = WHOLE_VIDEO,
           files: dict[str, Upload] | None = None, height: int = 96, visitor: str = "me") -> Job:
    request = JobRequest.of(upload, "inception_v3", height, dream, span, files or {})
    return queue.submit(visitor, upload.name, request=request, files=request.files_of(upload, files or {}))
