"""Dream a few frames of a job at some moments of its input, to see what the whole of it costs. Nothing is written."""
from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.automation.opening import AutomationFiles, open_automation
from streamdream.errors import StreamdreamError
from streamdream.media.picture_files import is_many
from streamdream.render.guide_video import GuideVideo
from streamdream.render.job import open_job_source
from streamdream.render.sample_encoding import EncodedSizes, open_sample_sink

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.reference_images import References
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob
    from streamdream.settings import StreamSettings

PLACES = 3
MIN_FRAMES, MAX_FRAMES = 10, 30
"""Of a sample; encoders give every eighth picture or so more bits than the others."""
LEAST_FRAMES = 2
"""Where the time is over: the first frame has warm-up passes, so the second is the first that tells something."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Some frames in a row that were dreamed, begun from nothing."""

    frames: int
    first_seconds: float
    """Up to the end of the first frame: seeking, and the warm-up passes."""
    rest_seconds: float
    """Of all other frames, until the last was encoded."""
    reached_end: bool

    @property
    def least_seconds(self) -> float:
        """Of one more sample that is worth its warm-up."""
        return self.first_seconds + self.rest_seconds / max(self.frames - 1, 1) * (MIN_FRAMES // 2)


@dataclass(frozen=True)
class Costs:
    """What samples of a job tell."""

    frames: int
    """That were dreamed."""
    places: int
    first_seconds: float
    """Of the first frame of a render, whose steps are prepared, too."""
    frame_seconds: float
    """Of every other frame, dreamed and encoded."""
    second_pass_seconds: float
    """For each frame, when the chunks are joined."""
    frame_bytes: float
    stored_frame_bytes: float
    """Of a frame in its chunk."""
    all_frames: int
    """Of the job, where the samples reached its end; else 0."""


class Sampler:
    """Dreams samples of one job with one dreamer. ``stream`` has no ``auto`` any more."""

    def __init__(self, job: RenderJob, stream: StreamSettings, dreamer: Dreamer) -> None:
        self._job, self._stream, self._dreamer = job, stream, dreamer

    def dream(self, at_seconds: float, sink: Sink, max_frames: int, deadlines: tuple[float, float],
              references_at: Callable[[float], References | None] | None = None) -> Sample:
        """Dream from ``at_seconds`` after the start of the job on into ``sink``, with the settings of that time.

        ``deadlines``, as ``time.perf_counter`` tells them, end the sample once it has ``MIN_FRAMES`` and, the second
        one, once it has ``LEAST_FRAMES``. ``references_at`` takes seconds since the start of the job; without it, a
        guide that is a video begins anew. Raises as ``render_video`` does.
        """
        from streamdream.dream.build import build_dreamer
        from streamdream.render.pipeline import render_video

        job, began, done, reached_end = self._job, time.perf_counter(), list[float](), True

        def on_frame(count: int) -> None:
            done.append(time.perf_counter())
            due = deadlines[count < MIN_FRAMES]
            if count >= max_frames or (count >= LEAST_FRAMES and done[-1] > due):
                raise _Enough

        with (sink, open_job_source(job, at_seconds) as source, GuideVideo(job.run.dream) as guide_video,
              open_automation(AutomationFiles(job.settings_track), job.run, job.input,
                              job.run.render.start + at_seconds) as automation):
            at, offset = (references_at, at_seconds) if references_at else (guide_video.references_at, 0.0)
            try:
                render_video(source, sink, self._dreamer, automation, on_frame, lambda seconds: at(seconds + offset),
                             lambda model: build_dreamer(replace(self._stream, model=model)))
            except _Enough:
                reached_end = False
                sink.finish()
        return Sample(len(done), done[0] - began, time.perf_counter() - done[0], reached_end)

    def measure(self, source: Source, frames: int, length_seconds: float, budget_seconds: float) -> Costs:
        """Dream samples across the job for about ``budget_seconds``: a slow model gets fewer. ``frames`` 0 is unknown.

        Sound is left out, which changes no cost. Raises as ``dream`` does.
        """
        job = replace(self._job, run=replace(self._job.run, automation=replace(self._job.run.automation, sound="")))
        log.info("dreaming samples of %s", job.shown_input)
        sampler, sizes, samples = Sampler(job, self._stream, self._dreamer), EncodedSizes(), list[Sample]()
        places = sample_places(job.input, frames, length_seconds)
        goes_on, max_frames = len(places) > 1, PLACES * MAX_FRAMES // len(places)
        end = time.perf_counter() + budget_seconds

        def add_sample(place: float, share: float) -> None:
            sink = open_sample_sink(job, source, sizes, goes_on)
            now = time.perf_counter()
            samples.append(sampler.dream(place, sink, max_frames, (now + share * (end - now), end)))

        for number, place in enumerate(places):
            if samples and time.perf_counter() + samples[-1].least_seconds > end:
                break
            with suppress(*([StreamdreamError] if place else [])):  # the stated length may be wrong
                add_sample(place, 1 / (len(places) - number))
        if not samples:
            add_sample(0.0, 1.0)
        dreamed = sum(sample.frames for sample in samples)
        later = dreamed - len(samples)
        second_pass = sizes.second_pass_seconds
        rest = sum(sample.rest_seconds for sample in samples) - second_pass - (sizes.flush_seconds if goes_on else 0.0)
        frame_bytes = sizes.bytes_per_frame(job.run.render.chunk_frames)
        return Costs(dreamed, len(samples), samples[0].first_seconds, rest / max(later, 1),
                     second_pass / dreamed, frame_bytes, sizes.stored_bytes_per_frame or frame_bytes,
                     dreamed if len(places) == 1 and samples[0].reached_end else 0)


class _Enough(Exception):
    """Ends a sample."""


def sample_places(name: str, frames: int, length_seconds: float) -> list[float]:
    """Seconds after the start of a job; only the start itself of a short one, or where nothing can be skipped."""
    can_seek = Path(name).is_file() or is_many(name)
    if not can_seek or frames <= PLACES * MAX_FRAMES:
        return [0.0]
    middle_first = sorted(range(PLACES), key=lambda number: abs(2 * number + 1 - PLACES))
    return [length_seconds * (2 * number + 1) / (2 * PLACES) for number in middle_first]
