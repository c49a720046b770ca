"""Look through a source before it is rendered: the times of its frames, and the scene cuts at which the render may be
split. A dream carries nothing over a cut, so what comes after one is the same whoever dreams what comes before.

This is the scan by one process; parallel_scan.py is the same by several.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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

    from streamdream.dream.frame_matching import FrameMatch
    from streamdream.dream.optical_flow import Grey
    from streamdream.media.frame import Frame
    from streamdream.render.job import RenderJob
    from streamdream.settings import DreamSettings

CANDIDATE_MARGIN = 0.3
"""Candidates are alike by up to this much more than a cut may be: they are compared without their motion."""


class Matcher(Protocol):
    """What is needed of a ``Dreamer`` here."""

    def match(self, image: NDArray[np.uint8], previous: Any, settings: DreamSettings) -> Any:
        """As of ``Dreamer``."""

    def match_on_host(self, image: NDArray[np.uint8], previous: Any, settings: DreamSettings) -> FrameMatch: ...


@dataclass(frozen=True)
class Scan:
    """What was found: ``chunks`` of at most the job's ``chunk_frames``, of which one begins at each cut."""

    chunks: tuple[Chunk, ...]
    source_pts: NDArray[np.int64]
    """Of each frame, in ticks of the source since the start of the output."""


def scan_source(job: RenderJob, matcher: Matcher, on_frame: Callable[[int], None]) -> Scan:
    """Decode the whole source once. Each candidate is confirmed as the dream itself would find the cut.

    ``on_frame`` gets the number of frames read. Raises what the source raises.
    """
    chunks = ChunkList(job.run.render.chunk_frames)
    source_pts: list[int] = []
    with (open_job_source(job) as source,
          open_automation(job.automation_files, job.run, job.input, job.run.render.start) as automation):
        detector = CutDetector(matcher)
        for index, source_frame in enumerate(prefetch(source)):
            frame = automation.on_frame(source_frame)
            is_cut = detector.is_cut(frame, automation.dream_request_at(frame.pts_seconds).dream)
            if chunks.is_start(index, is_cut):
                chunks.add(index, source_frame.pts, is_cut, ChunkStart.of(source_frame))
            source_pts.append(source_frame.pts)
            on_frame(index + 1)
    return Scan(tuple(chunks.found), np.array(source_pts, np.int64))


class ChunkStart(NamedTuple):
    """What a chunk that begins with a frame keeps of it."""

    position: list[Any] | None
    checksum: int

    @classmethod
    def of(cls, frame: Frame) -> ChunkStart:
        return cls(frame.position.to_json() if frame.position else None, picture_checksum(frame))


class ChunkList:
    """The chunks of a source whose frames are told one after the other."""

    def __init__(self, chunk_frames: int) -> None:
        self.found: list[Chunk] = []
        self._chunk_frames = chunk_frames

    def is_start(self, index: int, is_cut: bool) -> bool:
        """Whether a chunk begins with the frame of that index."""
        return not self.found or is_cut or index - self.found[-1].first_frame == self._chunk_frames

    def add(self, index: int, pts: int, is_cut: bool, start: ChunkStart) -> None:
        state = STATE_NONE if not self.found else STATE_CUT if is_cut else self.found[-1].state_file
        self.found.append(Chunk(len(self.found), index, pts, start.position, start.checksum, state))


class CutDetector:
    """Compares each frame with the one before it, as the dream does. ``is_blank`` tells of the last frame."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._reference: Grey | None = None
        self.is_blank = False

    def is_cut(self, frame: Frame, settings: DreamSettings) -> bool:
        """A frame whose likeness is plain without its motion is no candidate, and needs no flow."""
        grey = self._matcher.match_on_host(frame.image, None, settings).grey
        reference, self._reference = self._reference, grey
        self.is_blank = is_blank(grey)
        if reference is None:
            return False
        if grey.shape == reference.shape and not self.is_blank:
            still = np.zeros((*reference.shape, 2), np.float32)
            if frame_similarity(grey, reference, still) >= settings.cut + CANDIDATE_MARGIN:
                return False
        if self.is_blank and not is_blank(reference):
            self._reference = reference
            return False
        is_cut: bool = self._matcher.match(frame.image, reference, settings).cut
        return is_cut
