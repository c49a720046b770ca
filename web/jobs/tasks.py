"""The work of jobs: a video, a preview of three frames, a picture.

The library does it all; here, frames and steps wait for the shared device, and report progress to their job.
"""
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import reference_images
from streamdream.errors import ClusterLost, ClusterUnavailable, SourceError, StreamdreamError
from streamdream.media import images
from streamdream.media.input_container import TimeRange
from streamdream.render.job import RenderJob, with_pictures
from streamdream.render.plan import OtherIdentity
from streamdream.render.work_folder import default_path
from streamdream.settings import RenderSettings, StreamSettings, resolve

from .device_slots import DeviceSlot, StepwiseDeviceSlot
from .job import Job, Postponed
from .request import JobRequest

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.settings import DreamSettings

    from .uploads import Upload

Picture = NDArray[np.uint8]

RESULT, STILL = "dream.mp4", "dream.png"
"""File names of results."""
PREVIEWS = (1 / 6, 1 / 2, 5 / 6)
"""Positions of the frames of a preview, as fractions of the span."""
PREVIEW_SECONDS = 0.2
"""Between two previews of a picture."""
NO_CLUSTER = "the machines that render videos cannot be reached; try again later"
log = logging.getLogger(__name__)
MakeDreamer = Callable[[], "Dreamer"]
"""Makes the dreamer of one job. It may take seconds, so the job calls it."""
ENCODE = RenderSettings(sdr=True, chunk_frames=50)
"""The result plays in browsers, few of which play HDR. A restart of the server costs at most one chunk."""
CLUSTER_CHUNK_FRAMES = 250
"""On a cluster, where the end of the server costs no chunk."""


class PreviewSink:
    """A sink that also shows each frame as the preview of its job."""

    def __init__(self, sink: Sink, job: Job) -> None:
        self._sink, self._job = sink, job
        self.warnings = sink.warnings

    @property
    def bytes_written(self) -> int:
        return self._sink.bytes_written

    def write(self, image: Any, frame: Frame) -> None:
        self._sink.write(image, frame)
        self._job.show(image)

    def finish(self) -> None:
        self._sink.finish()

    def abort(self) -> None:
        self._sink.abort()

    def __enter__(self) -> PreviewSink:
        return self

    def __exit__(self, *error: object) -> None:
        self._sink.__exit__(*error)


class JobObserver:
    """Tells a job how far its render is."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def began(self, total_frames: int, done_frames: int, folder: object, rate: float) -> None:
        self._job.total, self._job.done = total_frames, done_frames

    def scanned(self, frames: int, total_frames: int) -> None:
        self._job.check()

    def frame(self, done_frames: int) -> None:
        self._job.progress(done_frames)


def render_video(job: Job, stream: StreamSettings, make: MakeDreamer, device_slot: DeviceSlot, cluster: str = ""
                 ) -> None:
    """Render the video of the job's request with its sound to ``job.result``, or what is missing of it: here, or on a
    Ray cluster, which is not asked for previews.
    """
    from streamdream.render.file_render import PlanOptions, render_file
    from streamdream.render.host import RenderHost

    request, output = _request(job), job.folder / RESULT
    if output.exists() and not default_path(str(output), "").exists():  # whole, but the server ended before it noted so
        job.result = output
        return
    upload, stepwise_slot = request.upload(job.folder), StepwiseDeviceSlot(device_slot)
    stream = replace(stream, model=request.model, field_height=request.field_height)
    encode = replace(ENCODE, start=float(request.span.start),
                     end=math.inf if request.end_seconds is None else request.end_seconds)
    run = replace(resolve({}, {}), dream=request.settings(job.folder), stream=stream, render=encode)
    host = RenderHost(open_source=lambda _: with_pictures(upload.open(request.span), request.field_height),
                      names=request.paths(job.folder), says_how_to_resume=False)
    if cluster:
        run = replace(run, render=replace(encode, chunk_frames=CLUSTER_CHUNK_FRAMES))
    else:
        host = replace(host, build_dreamer=lambda _: make(), shares_backend=True, device_slot=stepwise_slot,
                       adapt_options=lambda options: with_job_hooks(options, job, stepwise_slot),
                       wrap_sink=lambda sink: PreviewSink(sink, job))
    options = PlanOptions(cluster=cluster)
    render_job, observer = RenderJob(str(upload.path), str(output), run, overwrite=True), JobObserver(job)
    shown = _shown_names(job)
    with hide_paths(job.folder, shown), _waiting_for_the_cluster():
        try:
            report = render_file(render_job, options, observer, host)
        except OtherIdentity:  # begun by another version, with other weights or threads
            report = render_file(render_job, replace(options, restart=True), observer, host)
    job.warnings = [without_paths(warning, job.folder, shown) for warning in report.warnings]
    job.done = job.total = report.frames
    job.result = output


@contextmanager
def _waiting_for_the_cluster() -> Iterator[None]:
    """Within it, a cluster that cannot be reached postpones the job."""
    try:
        yield
    except (ClusterUnavailable, ClusterLost) as error:
        from streamdream.render import ray_connection

        log.warning("%s", error)
        ray_connection.disconnect()
        raise Postponed(NO_CLUSTER) from None


def _request(job: Job) -> JobRequest:
    assert job.request is not None
    return job.request


def preview_video(job: Job, upload: Upload, span: TimeRange, settings: DreamSettings, make: MakeDreamer,
                  device_slot: DeviceSlot) -> None:
    """Dream three frames of the span, each from a new state; ``job.answer`` grows by (seconds, frame, dream)."""
    from streamdream.dream.dreamer import DreamState

    start, end = float(span.start), upload.facts.seconds if span.end is None else float(span.end)
    length = min(end, upload.facts.seconds) - start
    frames: list[tuple[float, Picture, Picture]] = []
    job.answer, job.total = frames, len(PREVIEWS)
    with hide_paths(upload.path.parent, {str(upload.path): "the video"}):
        others = reference_images.read(settings)
        dreamer = make()
        stepwise_slot = StepwiseDeviceSlot(device_slot)
        options = with_job_hooks(dreamer.options, job, stepwise_slot)
        for part in PREVIEWS:
            job.check()
            frame = _frame_at(upload, start + part * length, start)
            with stepwise_slot():
                _, dream = dreamer(DreamState(), frame.image, settings, others, options=options)
            frames.append((frame.pts_seconds, frame.image, dream))
            job.show(dream)
            job.progress(len(frames))


def _frame_at(upload: Upload, seconds: float, first: float) -> Frame:
    """Return the frame at that time, or the one at ``first`` if the video is shorter than its header states."""
    for start in (seconds, first):
        try:
            with upload.open(TimeRange.of(start)) as source:
                frame = next(iter(source))
                return replace(frame, pts_seconds=frame.pts_seconds + start)
        except StreamdreamError:
            continue
    raise SourceError("no frame of this video could be read")


def dream_picture(job: Job, stream: StreamSettings, make: MakeDreamer, device_slot: DeviceSlot) -> None:
    """Dream the picture of the job's request to ``job.result``, with previews in ``job.picture``."""
    from streamdream.dream.dreamer import DreamState
    from streamdream.media.frame import to_array, to_uint8
    from streamdream.render import recipe

    request, shown_seconds, shown = _request(job), 0.0, _shown_names(job)
    settings = request.settings(job.folder)
    with hide_paths(job.folder, shown):
        image, others = images.read_image(str(request.input_path(job.folder))), reference_images.read(settings)
    job.warnings = list(request.facts.notes)
    job.total = (1 + settings.warmup_steps) * settings.octaves * settings.steps
    dreamer, stepwise_slot = make(), StepwiseDeviceSlot(device_slot)
    options = with_job_hooks(dreamer.options, job, stepwise_slot, count_steps=True)

    def show(picture: Tensor) -> None:
        nonlocal shown_seconds
        if time.monotonic() - shown_seconds >= PREVIEW_SECONDS:
            shown_seconds = time.monotonic()
            job.show(to_uint8(to_array(picture)))

    with hide_paths(job.folder, shown), stepwise_slot():
        _, dream = dreamer(DreamState(), image, settings, others, options=replace(options, on_picture=show))
    output = job.folder / STILL
    groups = (settings, replace(stream, model=request.model, field_height=request.field_height))
    with hide_paths(job.folder, shown):
        images.write_image(str(output), dream, overwrite=True,
                           recipe=recipe.compose(dreamer, groups, names=request.paths(job.folder)))
    job.show(dream)
    job.result = output


def with_job_hooks(options: DreamOptions, job: Job, slot: StepwiseDeviceSlot, count_steps: bool = False
                   ) -> DreamOptions:
    """Return options that yield the device after each step, and end the dream when the job is cancelled."""
    def on_step(done: int) -> None:
        job.check()
        if count_steps:
            job.progress(done)
        slot.yield_device()

    return replace(options, on_step=on_step)


@contextmanager
def hide_paths(folder: Path, names: Mapping[str, str]) -> Iterator[None]:
    """Within it, errors have ``names`` in place of paths in ``folder``, as ``without_paths`` returns them."""
    try:
        yield
    except StreamdreamError as error:
        text = without_paths(str(error), folder, names)
        if text == str(error):
            raise
        raise StreamdreamError(text) from None


def without_paths(text: str, folder: Path, names: Mapping[str, str]) -> str:
    """``names``: path -> what visitors know it by."""
    for path, name in names.items():
        text = text.replace(path, name).replace(Path(path).name, name)
    return text.replace(f"{folder}/", "").replace(str(folder), "this server")


def _shown_names(job: Job) -> dict[str, str]:
    request = _request(job)
    return {**request.paths(job.folder), str(request.input_path(job.folder)): f"the {request.kind}"}
