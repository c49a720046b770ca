"""Three moments of a job before and after, on one sheet, as the render would show them."""
from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from streamdream.automation.opening import check_layers
from streamdream.dream.field_check import checked_source
from streamdream.media.sinks.base import NullSink
from streamdream.media.tone_mapping import to_sdr_rgb
from streamdream.render.contact_sheet import draw_contact_sheet
from streamdream.render.file_render import fix_stream
from streamdream.render.guide_video import GuideVideo
from streamdream.render.job import open_job_source
from streamdream.render.samples import Sampler
from streamdream.system.durations import describe_seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamdream.media.frame import Frame, Picture
    from streamdream.render.job import RenderJob

log = logging.getLogger(__name__)
MOMENTS = (0.1, 0.5, 0.9)
"""As shares of the length."""
RUN_UP_FRAMES, MAX_WARMUP_STEPS = 12, 60
"""Before each moment; figures: docs/notebook/2026-11-27-forecast-of-a-render.md."""
MAX_SECONDS = 30.0
"""For each moment; a slow network gets a shorter run-up."""
MAX_CELL = 640
"""Width of a picture on the sheet, in px."""


class _LastPicture(NullSink):
    """Keeps the last frame and its dream."""

    def write(self, image: Picture, frame: Frame) -> None:
        self.dream, self.frame = to_sdr_rgb(image), frame


def preview(job: RenderJob) -> tuple[NDArray[np.uint8], list[float]]:
    """The sheet, uint8 [H, W, 3] RGB, and the times of its moments in seconds since the start of the job.

    Raises what ``render_file`` raises before its first frame; ``job.output`` is not used.
    """
    from streamdream.dream.build import build_dreamer

    with open_job_source(job) as source:
        checked_source(source, job.run, has_track=bool(job.settings_track))
        check_layers(job.run.dream, job.run.stream.model)  # before PyTorch is loaded
        frames, rate = source.frame_count, source.rate
        stream, _ = fix_stream(job, source, None, may_build=False)
    dreamer = build_dreamer(stream)
    log.info("dreaming %d moments of %s", len(MOMENTS), job.shown_input)
    sampler, before, after, times = Sampler(_with_warmup(job), stream, dreamer), [], [], []
    with GuideVideo(job.run.dream) as guide_video:
        for share in MOMENTS:
            last = int(max(frames - 1, 0) * share)
            first = max(last - RUN_UP_FRAMES, 0)
            sink, start_seconds = _LastPicture(), float(first / rate)
            deadline = time.perf_counter() + MAX_SECONDS
            sampler.dream(start_seconds, sink, last - first + 1, (deadline, deadline), guide_video.references_at)
            times.append(round(start_seconds + sink.frame.pts_seconds, 3))
            name = describe_seconds(times[-1])
            before.append((f"{name}, before", to_sdr_rgb(sink.frame.picture)))
            after.append((f"{name}, after", sink.dream))
    width = min(before[0][1].shape[1], MAX_CELL)
    return draw_contact_sheet(before + after, width, len(MOMENTS)), times


def _with_warmup(job: RenderJob) -> RenderJob:
    """With as many warm-up steps as a dream in the middle of a film has behind it."""
    dream = job.run.dream
    steps = min(round(1 / (1 - dream.keep)), MAX_WARMUP_STEPS)
    return replace(job, run=replace(job.run, dream=replace(dream, warmup_steps=max(dream.warmup_steps, steps))))
