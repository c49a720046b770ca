"""Measure what the simulation of many workers needs: parts of real renders, and what the driver does with chunks."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from streamdream import settings
from streamdream.dream.options import DreamOptions
from streamdream.dream.state import DreamState
from streamdream.media.sinks.chunks import ChunkTimes
from streamdream.media.sources.prefetch import prefetch
from streamdream.media.sources.video import Source
from streamdream.media.timestamps import SourcePosition
from streamdream.render.chunked_output import chunked_output
from streamdream.render.file_render import PlanOptions, render_file
from streamdream.render.job import RenderJob, open_job_source
from streamdream.render.plan import STATE_CUT, STATE_NONE, Chunk, RenderPlan
from streamdream.render.scan_worker import HostMatcher
from streamdream.render.scene_scan import Scan, scan_source
from streamdream.render.work_folder import ChunkRecord, WorkFolder, default_path

from .scaling_simulation import Costs

KEPT_CHUNKS, PLANNED_CHUNKS = 12, 2000
FIELD_ROWS = 480
"""Of the states that chunks leave: those of the assumed film."""


def make_job(path: str, output: str, **flags: str) -> RenderJob:
    return RenderJob(path, output, settings.resolve(flags, {}), overwrite=True)


@dataclass
class Timeline:
    """The observer of a render: when it began, when frames were there; on ``time.perf_counter``."""

    begin: float = 0.0
    scanned_at: list[float] = field(default_factory=list)
    began_at: float = 0.0
    frames_at: list[tuple[float, int]] = field(default_factory=list)
    end: float = 0.0

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None:
        self.began_at = time.perf_counter()

    def scanned(self, frames: int, total_frames: int) -> None:
        self.scanned_at.append(time.perf_counter())

    def frame(self, done_frames: int) -> None:
        if done_frames > (self.frames_at[-1][1] if self.frames_at else 0):
            self.frames_at.append((time.perf_counter(), done_frames))

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def timed_render(job: RenderJob, workers: int) -> Timeline:
    """Render a job; loading the libraries does not count."""
    timeline = Timeline(time.perf_counter())
    render_file(job, PlanOptions(restart=True, workers=workers), timeline)
    timeline.end = time.perf_counter()
    return timeline


def costs_alone(timeline: Timeline, shots: Sequence[int]) -> Costs:
    """Of a render by one process, of shots of so many frames."""
    times = [at for at, _ in timeline.frames_at]
    steps = [after - before for before, after in pairwise(times)]
    cuts = (np.cumsum(shots)[:-1] - 1).tolist()
    frame = float(np.mean([step for index, step in enumerate(steps) if index not in cuts]))
    cut = max(float(np.mean([steps[index] for index in cuts])) - frame, 0.0)
    load = times[0] - timeline.begin - frame - cut + timeline.end - times[-1]
    return Costs(load=load, frame=frame, cut=cut)


def costs_of_pair(timeline: Timeline, frames: int, alone: Costs, open_seconds: float) -> Costs:
    """Of a render by two workers at once, of two shots that together have so many frames."""
    first, last = (next(entry for entry in timeline.frames_at if entry[1] >= frames * part) for part in (0.25, 0.75))
    frame = 2 * (last[0] - first[0]) / (last[1] - first[1])
    slower = frame / alone.frame
    start = (first[0] - timeline.began_at - frame * first[1] / 2 - slower * (alone.cut + open_seconds))
    scan = timeline.scanned_at[-1] - timeline.scanned_at[0]
    load = timeline.began_at - timeline.begin - scan + timeline.end - timeline.frames_at[-1][0]
    return Costs(load=load, frame=frame, cut=slower * alone.cut, start=max(start, 0.0), open=slower * open_seconds,
                 scan_frame=scan / (len(timeline.scanned_at) - 1))


def seconds_of(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of the clock and of the processor, and what the call returns."""
    wall, core = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - core, result


def scan(job: RenderJob) -> Scan:
    """By one process."""
    return scan_source(job, HostMatcher(DreamOptions(job.run.stream.field_height)), lambda frames: None)


def open_seconds(job: RenderJob, frame: int) -> float:
    """Until a source is at a frame within the film, as a worker begins there."""
    chunk = next(chunk for chunk in scan(job).chunks if chunk.first_frame >= frame)

    def go() -> None:
        with open_job_source(job) as source:
            assert chunk.position is not None
            source.resume_at(SourcePosition.from_json(chunk.position), chunk.first_frame, chunk.checksum)
            next(iter(source))

    return min(seconds_of(go)[0] for _ in range(3))


@dataclass(frozen=True)
class FilmCosts:
    """Of a film of the size that is asked for; seconds."""

    decode_core: float
    encode_core: float
    scan_frame: float
    scan_core: float
    open: float
    keep: float
    keep_planned: float
    join_frame: float
    frame_bytes: float
    dream_bytes: float
    chunk_frames: int


def measure_film(job: RenderJob, dreamed: str) -> FilmCosts:
    """``dreamed`` is a dream of the film's size: its pictures are encoded, kept and joined as chunks."""
    def decode() -> int:
        with open_job_source(job) as source:
            return sum(1 for _ in prefetch(source))

    _, decode_core, frames = seconds_of(decode)
    scan_wall, scan_core, _ = seconds_of(lambda: scan(job))
    chunk_job = replace(job, input=dreamed)
    encode_core, keep, keep_planned, join, dream_bytes, chunk_frames = _driver_costs(chunk_job)
    return FilmCosts(decode_core / frames, encode_core, scan_wall / frames, scan_core / frames,
                     open_seconds(job, frames // 2), keep, keep_planned, join, Path(job.input).stat().st_size / frames,
                     dream_bytes, chunk_frames)


def _driver_costs(job: RenderJob) -> tuple[float, float, float, float, float, int]:
    """Make a chunk of the whole input, keep it as often as ``KEPT_CHUNKS``, and join these.

    Returns encoding (processor) of a frame, keeping of a chunk, the same for each chunk of the plan, joining of a
    frame, bytes of a frame, frames of the chunk.
    """
    with open_job_source(job) as source:
        output = chunked_output(job, source)
        assert output is not None
        with WorkFolder(default_path(job.output, ""), job.output, output.suffix) as folder:
            chunk = Chunk(0, 0, 0, None, 0, STATE_NONE)
            clock, pts, core = output.new_clock(), list[int](), time.process_time()
            file = output.open_chunk(folder.file(chunk), chunk, "")
            for frame in source:
                pts.append(frame.pts)
                file.add(output.prepare(frame.picture), clock(frame.pts * source.time_base))
            end_pts = clock.end(source)
            times = file.finish(end_pts)
            encode_core = (time.process_time() - core) / len(pts)
            pictures = folder.file(chunk).read_bytes()
            chunks = tuple(Chunk(number, number * len(pts), number * end_pts, None, 0, STATE_CUT)
                           for number in range(KEPT_CHUNKS))
            records = [_record(folder, chunk, ChunkTimes(times.pts + chunk.from_pts, times.durations), source)
                       for chunk in chunks]
            folder.save(RenderPlan({}, {}, source.time_base.as_integer_ratio(), len(pts), chunks,
                                   len(pts) * len(chunks)))
            keep, _, _ = seconds_of(lambda: _keep(folder, chunks, end_pts, pictures, records))
            planned = _seconds_to_save_plans(folder)
            join, _, _ = seconds_of(lambda: output.join(folder, output.new_clock(), folder.save_result, ""))
            folder.remove()
    return (encode_core, keep / len(chunks), planned, join / (len(pts) * len(chunks)), len(pictures) / len(pts),
            len(pts))


def _record(folder: WorkFolder, chunk: Chunk, times: ChunkTimes, source: Source) -> bytes:
    """The state file of a chunk, as a field of ``FIELD_ROWS`` leaves it."""
    shape = (FIELD_ROWS, FIELD_ROWS * source.width // source.height, 3)
    state = DreamState(np.zeros(shape, np.float32), np.zeros(shape[:2], np.uint8))
    folder.save_record(chunk, ChunkRecord(state, times, np.zeros(len(times.pts), np.int64)))
    return (folder.path / chunk.state_file).read_bytes()


def _keep(folder: WorkFolder, chunks: Sequence[Chunk], end_pts: int, pictures: bytes, records: Sequence[bytes]) -> None:
    """As a driver does with what comes from a cluster."""
    for chunk, record in zip(chunks, records, strict=True):
        folder.write(folder.file(chunk).name, pictures)
        folder.write(chunk.state_file, record)
        size, digest = folder.measure(chunk)
        assert folder.plan is not None
        done = replace(chunk, frames=folder.plan.chunk_frames, bytes=size, sha256=digest,
                       end_pts=chunk.from_pts + end_pts)
        folder.add_chunk(done, folder.plan.next_chunk(done), [])


def _seconds_to_save_plans(folder: WorkFolder) -> float:
    """For each chunk that a plan has."""
    plan = folder.plan
    assert plan is not None
    large = replace(plan, chunks=tuple(replace(plan.chunks[0], number=number, position=[10**6, 0, "1", 10**6, 0])
                                       for number in range(PLANNED_CHUNKS)))
    seconds = min(seconds_of(lambda: folder.save(large))[0] for _ in range(3))
    folder.save(plan)
    return seconds / PLANNED_CHUNKS
