"""The work of jobs: a video, a preview of three frames, a picture.

The library does it all; here, frames and steps wait for the shared device, and report progress to their job.
"""
from __future__ import annotations

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
from streamdream.errors import SourceError, StreamdreamError
from streamdream.media import images
from streamdream.media.input_container import TimeRange
from streamdream.settings import StreamSettings

from .queue import DeviceSlot, Job, StepwiseDeviceSlot

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.settings import DreamSettings, RenderSettings

    from .uploads import Upload

Picture = NDArray[np.uint8]

RESULT, STILL = "dream.mp4", "dream.png"
"""File names of results."""
PREVIEWS = (1 / 6, 1 / 2, 5 / 6)
"""Positions of the frames of a preview, as fractions of the span."""
PREVIEW_SECONDS = 0.2
"""Between two previews of a picture."""
MakeDreamer = Callable[[], "Dreamer"]
"""Makes the dreamer of one job. It may take seconds, so the job calls it."""
Names = Mapping[str, str]
"""Path of a visitor's file -> its name, which the recipe in the result has for it."""


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


def render_video(job: Job, upload: Upload, span: TimeRange, settings: DreamSettings, encode: RenderSettings,
                 make: MakeDreamer, device_slot: DeviceSlot, names: Names | None = None) -> None:
    """Render the span of a video with its sound to ``job.result``."""
    from streamdream.media.sinks.registry import open_sink
    from streamdream.render import recipe
    from streamdream.render.guide_video import GuideVideo
    from streamdream.render.pipeline import render_video

    start, end = float(span.start), math.inf if span.end is None else float(span.end)
    encode = replace(encode, start=start, end=end, duration=math.inf)
    output = job.folder / RESULT
    with hide_paths(upload), GuideVideo(settings) as others, upload.open(span) as source:
        job.total = source.frame_count
        dreamer = make()
        options, stepwise_slot = with_job_hooks(dreamer.options, job, device_slot)
        source.deliver_pictures(*options.field_size(source.height, source.width))
        groups = (settings, StreamSettings(), encode)
        with PreviewSink(open_sink(str(output), source, encode, input_path=str(upload.path),
                                   recipe=lambda: recipe.compose(dreamer, groups, names=names)), job) as sink:
            report = render_video(source, sink, dreamer, settings, job.progress, others.references_at,
                                  device_slot=stepwise_slot, options=options)
    job.warnings = [_without_path(warning, upload, output) for warning in report.warnings]
    job.result, job.answer = output, report


def preview_video(job: Job, upload: Upload, span: TimeRange, settings: DreamSettings, make: MakeDreamer,
                  device_slot: DeviceSlot) -> None:
    """Dream three frames of the span, each from a new state; ``job.answer`` grows by (seconds, frame, dream)."""
    from streamdream.dream.dreamer import DreamState

    start, end = float(span.start), upload.facts.seconds if span.end is None else float(span.end)
    length = min(end, upload.facts.seconds) - start
    frames: list[tuple[float, Picture, Picture]] = []
    job.answer, job.total = frames, len(PREVIEWS)
    with hide_paths(upload):
        others = reference_images.read(settings)
        dreamer = make()
        options, stepwise_slot = with_job_hooks(dreamer.options, job, device_slot)
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


def dream_picture(job: Job, image: Picture, settings: DreamSettings, make: MakeDreamer, device_slot: DeviceSlot,
                  names: Names | None = None) -> None:
    """Dream a picture to ``job.result``, with previews in ``job.picture``."""
    from streamdream.dream.dreamer import DreamState
    from streamdream.media.frame import to_array, to_uint8
    from streamdream.render import recipe

    others = reference_images.read(settings)
    shown_seconds = 0.0
    job.total = (1 + settings.warmup_steps) * settings.octaves * settings.steps
    dreamer = make()
    options, stepwise_slot = with_job_hooks(dreamer.options, job, device_slot, count_steps=True)

    def show(picture: Tensor) -> None:
        nonlocal shown_seconds
        if time.monotonic() - shown_seconds >= PREVIEW_SECONDS:
            shown_seconds = time.monotonic()
            job.show(to_uint8(to_array(picture)))

    with stepwise_slot():
        _, dream = dreamer(DreamState(), image, settings, others, options=replace(options, on_picture=show))
    output = job.folder / STILL
    images.write_image(str(output), dream, recipe=recipe.compose(dreamer, (settings, StreamSettings()), names=names))
    job.show(dream)
    job.result = output


def with_job_hooks(options: DreamOptions, job: Job, device_slot: DeviceSlot, count_steps: bool = False
                   ) -> tuple[DreamOptions, StepwiseDeviceSlot]:
    """Return options that yield the device after each step, and end the dream when the job is cancelled."""
    stepwise_slot = StepwiseDeviceSlot(device_slot)

    def on_step(done: int) -> None:
        job.check()
        if count_steps:
            job.progress(done)
        stepwise_slot.yield_device()

    return replace(options, on_step=on_step), stepwise_slot


@contextmanager
def hide_paths(upload: Upload) -> Iterator[None]:
    """Within it, replace the path of the visitor's file in errors by "the video"."""
    try:
        yield
    except StreamdreamError as error:
        if str(upload.path.parent) not in str(error):
            raise
        raise StreamdreamError(_without_path(str(error), upload)) from None


def _without_path(text: str, upload: Upload, *others: Path) -> str:
    for path, name in ((upload.path, "the video"), *((other, other.name) for other in others)):
        text = text.replace(str(path), name).replace(str(path.parent) + "/", "").replace(path.name, name)
    return text
