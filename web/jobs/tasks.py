"""What jobs do: a video, three frames of it to try the settings on, a picture.

All of it is the library's own: here frames and steps take turns on the shared device, and a job hears how far they are.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import reference_images
from streamdream.errors import SourceError, StreamdreamError
from streamdream.media import images

from .queue import Job, StepwiseSlot, Turn

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
"""Names of results: ours, whatever the upload was called."""
PREVIEWS = (1 / 6, 1 / 2, 5 / 6)
"""Where in the span the frames of a preview lie."""
SHOWN_EVERY_SECONDS = 0.2
"""Between two looks at a picture that is being dreamed."""
MakeDreamer = Callable[[], "Dreamer"]
"""Model, backend and all for one job; it may take seconds, so the job calls it."""


@dataclass(frozen=True)
class Span:
    """The part of a video that is wanted, in seconds; ``end`` None is up to its end."""

    start: float = 0.0
    end: float | None = None

    @property
    def stop(self) -> float:
        return float("inf") if self.end is None else self.end


class PreviewSink:
    """A sink whose newest picture can be looked at while it goes on."""

    def __init__(self, sink: Sink, job: Job) -> None:
        self._sink, self._job = sink, job
        self.warnings = sink.warnings

    @property
    def bytes_written(self) -> int:
        return self._sink.bytes_written

    def write(self, image: Picture, frame: Frame) -> None:
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


def render_video(job: Job, upload: Upload, span: Span, settings: DreamSettings, encode: RenderSettings,
                 make: MakeDreamer, turn: Turn) -> None:
    """The whole span of a video with its sound, to ``job.result``."""
    from streamdream.media.sinks.registry import open_sink
    from streamdream.render.guide_video import GuideVideo
    from streamdream.render.pipeline import render_video

    encode = replace(encode, start=span.start, end=span.stop, duration=float("inf"))
    output = job.folder / RESULT
    with hide_paths(upload), GuideVideo(settings) as others, upload.open(span.start, span.stop) as source:
        job.total = source.frame_count
        dreamer = make()
        options, turns = with_job_hooks(dreamer.options, job, turn)
        with PreviewSink(open_sink(str(output), source, encode, input_path=str(upload.path)), job) as sink:
            report = render_video(source, sink, dreamer, settings, job.progress, others.references_at, turn=turns,
                                  options=options)
    job.warnings = [_without_path(warning, upload, output) for warning in report.warnings]
    job.result, job.answer = output, report


def preview_video(job: Job, upload: Upload, span: Span, settings: DreamSettings, make: MakeDreamer, turn: Turn) -> None:
    """Three frames of the span as if the dream began there; ``job.answer`` grows by (seconds, frame, dream)."""
    from streamdream.dream.dreamer import DreamState

    length = min(span.stop, upload.facts.seconds) - span.start
    found: list[tuple[float, Picture, Picture]] = []
    job.answer, job.total = found, len(PREVIEWS)
    with hide_paths(upload):
        others = reference_images.read(settings)
        dreamer = make()
        options, turns = with_job_hooks(dreamer.options, job, turn)
        for part in PREVIEWS:
            job.check()
            frame = _frame_at(upload, span.start + part * length, span.start)
            with turns():
                _, dream = dreamer(DreamState(), frame.image, settings, others, options=options)
            found.append((frame.pts_seconds, frame.image, dream))
            job.show(dream)
            job.progress(len(found))


def _frame_at(upload: Upload, seconds: float, first: float) -> Frame:
    """The frame of that time, or for the end of a video that is shorter than it says, the first wanted one."""
    for start in (seconds, first):
        try:
            with upload.open(start) as source:
                frame = next(iter(source))
                return replace(frame, pts_seconds=frame.pts_seconds + start)
        except StreamdreamError:
            continue
    raise SourceError("nothing in this video could be read")


def dream_picture(job: Job, image: Picture, settings: DreamSettings, make: MakeDreamer, turn: Turn) -> None:
    """A still to ``job.result``, seen in ``job.picture`` as it grows."""
    from streamdream.dream.dreamer import DreamState
    from streamdream.media.frame import to_array, to_uint8

    others = reference_images.read(settings)
    shown_seconds = 0.0
    job.total = (1 + settings.warmup_steps) * settings.octaves * settings.steps
    dreamer = make()
    options, turns = with_job_hooks(dreamer.options, job, turn, count_steps=True)

    def show(picture: Tensor) -> None:
        nonlocal shown_seconds
        if time.monotonic() - shown_seconds >= SHOWN_EVERY_SECONDS:
            shown_seconds = time.monotonic()
            job.show(to_uint8(to_array(picture)))

    with turns():
        _, dream = dreamer(DreamState(), image, settings, others, options=replace(options, on_picture=show))
    output = job.folder / STILL
    images.write_image(str(output), dream)
    job.show(dream)
    job.result = output


def with_job_hooks(options: DreamOptions, job: Job, turn: Turn, count_steps: bool = False
                   ) -> tuple[DreamOptions, StepwiseSlot]:
    """Options that give the device away after every step, and end the dream when the job is cancelled."""
    turns = StepwiseSlot(turn)

    def on_step(done: int) -> None:
        job.check()
        if count_steps:
            job.progress(done)
        turns.yield_slot()

    return replace(options, on_step=on_step), turns


@contextmanager
def hide_paths(upload: Upload) -> Iterator[None]:
    """Within it the visitor's file is called "the video" in all errors; where it lies is nobody's business."""
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
