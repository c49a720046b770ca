"""Render a file into a file: a plan, its chunks, and their joining. Whatever ends the process, the next one goes on.

    RenderJob ──▶ RenderPlan ──▶ chunks, each by pipeline.render_video ──▶ join ──▶ output

What is no file at one of its ends (a URL, a pipe, no output) is rendered in one pass, and begins anew.
"""
from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streamdream.automation.opening import open_automation
from streamdream.dream.field_check import checked_source
from streamdream.errors import SinkError, StreamdreamError
from streamdream.media.container import is_pattern
from streamdream.media.sinks.registry import check_output, open_sink
from streamdream.media.sinks.threaded import ThreadedSink
from streamdream.media.sources.video import open_source
from streamdream.media.timestamps import SourcePosition
from streamdream.render import recipe
from streamdream.render.chunk_storage import ChunkStorage, chunk_storage
from streamdream.render.chunk_writer import ChunkWriter
from streamdream.render.guide_video import GuideVideo
from streamdream.render.identity import identify
from streamdream.render.plan import STATE_CUT, STATE_NONE, Chunk, DamagedPlan, RenderPlan, check_identity
from streamdream.render.report import RenderReport, summarize
from streamdream.render.work_folder import WorkFolder, default_path
from streamdream.system.atomic_file import DISK_FULL_ERRORS, OutputTarget

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.media.frame import Frame
    from streamdream.media.sources.video import AvSource, Source
    from streamdream.render.job import RenderJob
    from streamdream.settings import StreamSettings

MIN_FRAMES_TO_BUILD = 600
"""A render that is shorter begins at once, unless its engines are built: a build takes seconds for each octave."""
log = logging.getLogger(__name__)


class RenderObserver(Protocol):
    """Is told how far a render is."""

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None) -> None:
        """``total_frames`` 0 is unknown; ``done_frames`` are there from before; ``folder`` keeps what is done."""

    def frame(self, done_frames: int) -> None: ...


@dataclass(frozen=True)
class PlanOptions:
    """How a render is carried out; none of it changes a frame."""

    restart: bool = False
    """Begin anew where the plan of another render is there."""
    work_folder: str = ""
    """Where the chunks are kept; "" is beside the output."""


def render_file(job: RenderJob, options: PlanOptions, observer: RenderObserver) -> RenderReport:
    """Render the job, or what is missing of it. Raises UsageError before anything is written, and what
    ``render_video`` raises; then the chunks that are whole stay.
    """
    with open_job_source(job) as source:
        checked_source(source, job.run, has_track=bool(job.settings_track))
        storage = chunk_storage(job, source) if _can_resume(job.input) else None
        path = default_path(job.output, options.work_folder)
        if storage is None or not path.exists():
            check_output(job.output, source, job.run.render, job.overwrite, job.input)
        if storage is None:
            return _render_in_one_pass(job, source, observer)
        with WorkFolder(path, job.output, storage.suffix) as folder:
            try:
                return _ChunkedRender(job, options, source, storage, folder, observer).run()
            except StreamdreamError as error:
                if kept := folder.describe_kept():
                    error.args = (f"{error}; {kept}",)
                raise


def open_job_source(job: RenderJob) -> AvSource:
    render = job.run.render
    return open_source(job.input, render.start, render.duration, render.end)


def _can_resume(name: str) -> bool:
    """Whether the input can be read again from any frame on."""
    return name.startswith("lavfi:") or is_pattern(name) or Path(name).is_file()


def _render_in_one_pass(job: RenderJob, source: Source, observer: RenderObserver) -> RenderReport:
    from streamdream.dream.build import build_dreamer
    from streamdream.render.pipeline import render_video

    stream = job.run.stream
    dreamer = cache(partial(build_dreamer, stream))  # loads PyTorch, so it is called when the output was checked
    with (GuideVideo(job.run.dream) as guide_video,
          open_automation(job.automation_files, job.run, job.input, job.run.render.start) as automation,
          open_sink(job.output, source, job.run.render, job.overwrite, job.input,
                    recipe=lambda: _compose_recipe(job, dreamer())) as sink):
        observer.began(source.frame_count, 0, None)
        return render_video(source, sink, dreamer(), automation, observer.frame, guide_video.references_at,
                            lambda model: build_dreamer(replace(stream, model=model)))


def _compose_recipe(job: RenderJob, dreamer: Dreamer) -> str:
    run = job.run
    return recipe.compose(dreamer, (run.dream, run.stream, run.automation, run.render), job.settings_track)


class _ChunkedRender:
    """``run`` carries out the plan in ``folder``, after making it where there is none."""

    def __init__(self, job: RenderJob, options: PlanOptions, source: Source, storage: ChunkStorage, folder: WorkFolder,
                 observer: RenderObserver) -> None:
        self._job, self._options, self._source, self._storage = job, options, source, storage
        self._folder, self._observer = folder, observer

    def run(self) -> RenderReport:
        from streamdream.dream.build import build_dreamer

        plan = self._load_plan()
        if plan is None or not self._folder.is_result(plan):
            is_joining = plan is not None and plan.result is not None and self._storage.joins_in_place
            check_output(self._job.output, self._source, self._job.run.render, self._job.overwrite or is_joining,
                         self._job.input)
            self._storage.check()
        stream = self._fix_stream(plan)
        identity = identify(self._job, stream)
        if plan is not None:
            check_identity(plan.identity, identity, self._job.output)
        else:
            plan = RenderPlan(identity, self._job.to_json(), self._source.time_base.as_integer_ratio(),
                              self._job.run.render.chunk_frames, (Chunk(0, 0, 0, None, 0, STATE_NONE),))
            self._folder.save(plan)
        done_frames = plan.frames_done
        self._observer.began(plan.frames or self._source.frame_count, done_frames, self._folder)
        dreamer = build_dreamer(stream)
        report = None
        for chunks in list(plan.missing_ranges()):
            report = self._render_range(chunks, dreamer, stream)
        report = report or summarize(dreamer, dreamer.options, self._job.run.dream,
                                     (self._source.height, self._source.width), 0, [])
        return replace(self._finish(report, _compose_recipe(self._job, dreamer)), resumed_frames=done_frames)

    def _load_plan(self) -> RenderPlan | None:
        try:
            plan = self._folder.load()
        except DamagedPlan as error:
            log.warning("the unfinished render of %s cannot be gone on with: %s; it begins anew", self._job.output,
                        error)
            plan = None
        if plan is None or self._options.restart:
            self._folder.clear()
            return None
        return plan

    def _fix_stream(self, plan: RenderPlan | None) -> StreamSettings:
        """The settings with a backend, a precision and a number of threads in place of ``auto``: those of the plan, or
        those that are best here.
        """
        from streamdream.dream.build import choose_backend
        from streamdream.system.torch_threads import effective_threads

        stream = self._job.run.stream
        if plan is not None:
            fixed = {name: plan.identity[name] for name in ("backend", "precision") if getattr(stream, name) == "auto"}
            return replace(stream, threads=stream.threads or plan.identity["threads"], **fixed)
        with GuideVideo(self._job.run.dream) as guide_video:
            image, references = next(iter(self._source)).image, guide_video.references_at(0.0)
            choice = choose_backend(stream, image, self._job.run.dream, references,
                                    may_build=self._source.frame_count >= MIN_FRAMES_TO_BUILD)
        log.info("%s", choice.reason)
        return replace(stream, backend=choice.backend, precision=choice.precision, threads=effective_threads(stream))

    def _render_range(self, chunks: tuple[Chunk, ...], dreamer: Dreamer, stream: StreamSettings) -> RenderReport:
        """Render chunks that follow each other; the last one up to the next that is there, or to the end."""
        from streamdream.dream.build import build_dreamer
        from streamdream.dream.dreamer import DreamState
        from streamdream.render.pipeline import RenderStart, render_video

        job, first, plan = self._job, chunks[0], self._folder.plan
        assert plan is not None
        following = plan.next_chunk(chunks[-1])
        if following is not None:
            job = replace(job, record_settings="")  # the last range writes it, from the start on
        start = RenderStart(DreamState(index=first.first_frame))
        earlier = self._folder.source_pts_before(first.first_frame)
        if first.state_before not in (STATE_NONE, STATE_CUT):
            record = self._folder.load_record(first.state_before)
            start = RenderStart(record.state, frozen_image=record.frozen_image)
        start = replace(start, earlier_seconds=[float(int(pts) * self._source.time_base) for pts in earlier])
        clock = self._storage.new_clock()
        for pts in earlier:
            clock(int(pts) * self._source.time_base)
        with open_job_source(job) as source:
            if first.first_frame:
                assert first.position is not None
                source.resume_at(SourcePosition.from_json(first.position), first.first_frame, first.checksum)
            frames = source if following is None else _Limited(source, following.first_frame - first.first_frame)
            writer = ChunkWriter(self._folder, source, self._storage, clock, first, start.state.cuts,
                                 ChunkTarget(job.output, self._folder.path), _compose_recipe(job, dreamer))
            with (GuideVideo(job.run.dream) as guide_video, ThreadedSink(writer) as sink,
                  open_automation(job.automation_files, job.run, job.input, job.run.render.start) as automation):
                return render_video(frames, sink, dreamer, automation, self._observer.frame, guide_video.references_at,
                                    lambda model: build_dreamer(replace(stream, model=model)), start=start,
                                    checkpoints=writer)

    def _finish(self, report: RenderReport, recipe_text: str) -> RenderReport:
        """Join the chunks, unless that is done already; remove the folder."""
        plan, source = self._folder.plan, self._source
        assert plan is not None
        warnings = list(plan.warnings)
        if not self._folder.is_result(plan):
            clock = self._storage.new_clock()
            for pts in self._folder.source_pts_before(plan.frames):
                clock(int(pts) * source.time_base)
            warnings += self._storage.join(self._folder, clock, self._folder.save_result, recipe_text)
        self._folder.remove()
        return replace(report, frames=plan.frames, cuts=sum(chunk.cuts for chunk in plan.chunks), warnings=warnings)


class ChunkTarget(OutputTarget):
    """Errors of chunks, which name the output."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self._folder = folder

    def _describe_error(self, error: BaseException) -> SinkError:
        if getattr(error, "errno", None) in DISK_FULL_ERRORS:
            return SinkError(f"no space left in {self._folder.parent} for {self.name}")
        return super()._describe_error(error)


class _Limited:
    """The first frames of a source."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._count = source, count
        self.name, self.height, self.width, self.warnings = source.name, source.height, source.width, source.warnings

    def __iter__(self) -> Iterator[Frame]:
        return islice(self._source, self._count)
