"""A process of a parallel scan: looks through one range of the frames of a job.

Its order comes as one line of JSON over standard input, a ``RangeOrder``. It answers with a line for each frame,
``[pts, is_cut, position, checksum]``, or ``{"error": "..."}``; see ``RangeFrame``. It ends when its standard input
ends, so none survives its parent.
"""
from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from streamdream.errors import StreamdreamError
from streamdream.media.timestamps import SourcePosition
from streamdream.render.job import RenderJob, open_job_source
from streamdream.render.scene_scan import ChunkStart, CutDetector, Matcher

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamdream.dream.frame_matching import FrameMatch
    from streamdream.dream.options import DreamOptions
    from streamdream.media.frame import Frame
    from streamdream.settings import DreamSettings


@dataclass(frozen=True)
class RangeOrder:
    """Look through the frames from index ``first`` up to ``end``, and on to the next one that is not blank: to that one
    the frame after it is compared, whatever comes before.
    """

    job: dict[str, Any]
    stream: dict[str, Any]
    """Settings of the job's stream, with nothing left to ``auto``."""
    first: int
    end: int
    position: list[Any] | None
    """Of the first frame; None for that of the source."""
    threads: int
    """Of its decoder, and of OpenCV."""


class RangeFrame(NamedTuple):
    """What is told of a frame."""

    pts: int
    is_cut: bool | None
    """None where that depends on frames before the range."""
    start: ChunkStart | None
    """None where no chunk can begin with it."""


class HostMatcher:
    """Matches frames as a dreamer on the processor does, without PyTorch, which takes seconds to load."""

    def __init__(self, options: DreamOptions) -> None:
        self._options = options

    def match(self, image: NDArray[np.uint8], previous: Any, settings: DreamSettings) -> FrameMatch:
        from streamdream.dream.frame_matching import match_image

        return match_image(image, previous, settings, self._options)

    match_on_host = match


def scan_range(frames: Iterable[Frame], detector: CutDetector, settings: DreamSettings, order: RangeOrder,
               chunk_frames: int) -> Iterator[RangeFrame]:
    """Until the first cut of a later range is met, each of its frames may begin a chunk."""
    is_decided, last_start = order.first == 0, 0 if order.first == 0 else None
    for index, frame in enumerate(frames, order.first):
        found = detector.is_cut(frame, settings)
        is_cut = found if is_decided else None
        is_decided = is_decided or not detector.is_blank
        last_start = index if is_cut else last_start
        is_beyond = index >= order.end
        is_start = is_beyond or last_start is None or (index - last_start) % chunk_frames == 0
        yield RangeFrame(frame.pts, is_cut, ChunkStart.of(frame) if is_start else None)
        if is_beyond and not detector.is_blank:
            return


def main() -> None:
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints must not disturb the parent
    order = RangeOrder(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for pts, is_cut, start in _scan(order):
            reports.write(json.dumps([pts, is_cut, *(start or (None, None))]) + "\n")
            reports.flush()
    except StreamdreamError as error:
        reports.write(json.dumps({"error": str(error)}) + "\n")
        sys.exit(1)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def _scan(order: RangeOrder) -> Iterator[RangeFrame]:
    from streamdream.media.opencv import cv2
    from streamdream.media.picture_reader import set_decoder_threads
    from streamdream.media.sources.prefetch import prefetch

    set_decoder_threads(order.threads)
    cv2().setNumThreads(order.threads)
    os.chdir(order.job["folder"])
    job = RenderJob.from_json(order.job)
    detector = CutDetector(_matcher(job, order.stream))
    with open_job_source(job) as source:
        if order.position is not None:
            source.resume_at(SourcePosition.from_json(order.position), order.first, None)
        yield from scan_range(prefetch(source), detector, job.run.dream, order, job.run.render.chunk_frames)


def _matcher(job: RenderJob, fixed: Mapping[str, Any]) -> Matcher:
    from streamdream.dream.options import DreamOptions

    stream = dataclasses.replace(job.run.stream, **fixed)
    if stream.frame_path == "processor":
        return HostMatcher(DreamOptions(stream.field_height))
    from streamdream.dream.build import build_dreamer

    return build_dreamer(stream)


if __name__ == "__main__":
    main()
