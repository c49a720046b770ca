"""Look through a source before it is rendered: the times of its frames, and the scene cuts at which the render may be
split. A dream carries nothing over a cut, so what comes after one is the same whoever dreams what comes before.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.automation.opening import open_automation
from streamdream.dream.frame_matching import frame_similarity, is_blank
from streamdream.media.frame import picture_checksum
from streamdream.media.sources.prefetch import prefetch
from streamdream.render.job import open_job_source
from streamdream.render.plan import STATE_CUT, STATE_NONE, Chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.optical_flow import Grey
    from streamdream.media.frame import Frame
    from streamdream.render.job import RenderJob
    from streamdream.settings import DreamSettings

CANDIDATE_MARGIN = 0.3
"""Candidates are alike by up to this much more than a cut may be: they are compared without their motion."""


@dataclass(frozen=True)
class Scan:
    """What was found: ``chunks`` of at most the job's ``chunk_frames``, of which one begins at each cut."""

    chunks: tuple[Chunk, ...]
    source_pts: NDArray[np.int64]
    """Of each frame, in ticks of the source since the start of the output."""


def scan_source(job: RenderJob, dreamer: Dreamer, on_frame: Callable[[int], None]) -> Scan:
    """Decode the whole source once. Each candidate is confirmed as the dream itself would find the cut.

    ``on_frame`` gets the number of frames read. Raises what the source raises.
    """
    chunks: list[Chunk] = []
    source_pts: list[int] = []
    with (open_job_source(job) as source,
          open_automation(job.automation_files, job.run, job.input, job.run.render.start) as automation):
        detector = CutDetector(dreamer)
        for index, source_frame in enumerate(prefetch(source)):
            frame = automation.on_frame(source_frame)
            is_cut = detector.is_cut(frame, automation.dream_request_at(frame.pts_seconds).dream)
            if not chunks or is_cut or index - chunks[-1].first_frame == job.run.render.chunk_frames:
                chunks.append(_chunk_at(source_frame, index, chunks, is_cut))
            source_pts.append(source_frame.pts)
            on_frame(index + 1)
    return Scan(tuple(chunks), np.array(source_pts, np.int64))


def _chunk_at(frame: Frame, index: int, before: list[Chunk], is_cut: bool) -> Chunk:
    state = STATE_NONE if not before else STATE_CUT if is_cut else before[-1].state_file
    position = frame.position.to_json() if frame.position else None
    return Chunk(len(before), index, frame.pts, position, picture_checksum(frame), state)


class CutDetector:
    """Compares each frame with the one before it, as the dream does."""

    def __init__(self, dreamer: Dreamer) -> None:
        self._dreamer = dreamer
        self._reference: Grey | None = None

    def is_cut(self, frame: Frame, settings: DreamSettings) -> bool:
        """A frame whose likeness is plain without its motion is no candidate, and needs no flow."""
        current = self._dreamer.match_on_host(frame.image, None, settings)
        reference, self._reference = self._reference, current.grey
        if reference is None:
            return False
        if current.grey.shape == reference.shape and not is_blank(current.grey):
            still = np.zeros((*reference.shape, 2), np.float32)
            if frame_similarity(current.grey, reference, still) >= settings.cut + CANDIDATE_MARGIN:
                return False
        if is_blank(current.grey) and not is_blank(reference):
            self._reference = reference
            return False
        return self._dreamer.match(frame.image, reference, settings).cut
