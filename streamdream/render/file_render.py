"""Render a file into a file: a plan, its chunks, and their joining. Whatever ends the process, the next one goes on.

    RenderJob ──▶ RenderPlan ──▶ chunks, each by pipeline.render_video ──▶ join ──▶ output

If the input or the output is not a file (a URL, a pipe, ``null``), it is rendered in one pass and cannot be resumed.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streamdream.automation.opening import open_automation
from streamdream.dream.field_check import checked_source
from streamdream.errors import NameTaken, StreamdreamError
from streamdream.media.picture_files import is_many
from streamdream.media.sinks.registry import check_output, open_sink
from streamdream.render.chunk_render import compose_recipe, render_range
from streamdream.render.chunked_output import ChunkedOutput, chunked_output
from streamdream.render.disk_space import check_space
from streamdream.render.executor import Executor, render_chunks
from streamdream.render.guide_video import GuideVideo
from streamdream.render.host import COMMAND_LINE, RenderHost
from streamdream.render.identity import identify
from streamdream.render.parallel_scan import scan_in_parallel
from streamdream.render.plan import STATE_CUT, STATE_NONE, STATE_WARM_UP, Chunk, DamagedPlan, RenderPlan, check_identity
from streamdream.render.report import RenderReport, summarize
from streamdream.render.seams import split_long_shots
from streamdream.render.work_folder import WorkFolder, default_path
from streamdream.render.workers import ProcessExecutor

if TYPE_CHECKING:
    from streamdream.backends.choose_once import BackendChoice
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob
    from streamdream.settings import StreamSettings

MIN_FRAMES_TO_BUILD = 600
"""A render that is shorter begins at once, unless its engines are built: a build takes seconds for each octave."""
MIN_CHUNKS_TO_REPORT = 20
"""Fewer are joined in a moment."""
log = logging.getLogger(__name__)


class RenderObserver(Protocol):
    """Is told how far a render is."""

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None:
        """``total_frames`` 0 is unknown; ``done_frames`` are there from before; ``folder`` keeps what is done; ``rate``
        is in frames per second.
        """

    def scanned(self, frames: int, total_frames: int) -> None:
        """So many frames were read before the render begins; ``total_frames`` 0 is unknown."""

    def frame(self, done_frames: int) -> None: ...


@dataclass(frozen=True)
class PlanOptions:
    """How a render is carried out. With the same number of threads none of it changes a frame."""

    restart: bool = False
    """Begin anew where the plan of another render is there."""
    work_folder: str = ""
    """Where the chunks are kept; "" is beside the output."""
    workers: int = 1
    """Processes that render; more than one split the render."""
    seams: str = "exact"
    """One of ``SEAMS``: where they split it."""
    cluster: str = ""
    """``auto`` or ``ray://HOST:PORT``: a Ray cluster that renders."""
    chunk_resources: str = ""
    """What each chunk needs there, as in ``gpu=1``."""


def render_file(job: RenderJob, options: PlanOptions, observer: RenderObserver, host: RenderHost = COMMAND_LINE
                ) -> RenderReport:
    """Render the job, or what is missing of it. Raises UsageError before anything is written, and what
    ``render_video`` raises; then the chunks that are whole stay.
    """
    with host.open_source(job) as source:
        checked_source(source, job.run, has_track=bool(job.settings_track))
        output = chunked_output(job, source)
        if output is not None and not can_resume(job.input):
            log.info("%s is not a file: this render cannot be resumed", job.input)
            output = None
        path = default_path(job.output, options.work_folder)
        if output is None or not path.exists():
            check_output(job.output, source, job.run.render, job.overwrite, job.input)
        if output is None:
            if options.cluster:
                log.warning("this is rendered here: a cluster renders files into files")
            check_space(job, source)
            return _render_in_one_pass(job, source, observer)
        with WorkFolder(path, job.output, output.suffix) as folder:
            try:
                return _ChunkedRender(job, options, source, output, folder, observer, host).run()
            except StreamdreamError as error:
                if host.says_how_to_resume and (kept := folder.describe_kept()):
                    error.args = (f"{error}; {kept}",)
                raise


def can_resume(name: str) -> bool:
    """Whether the input can be read again from any frame on."""
    return name.startswith("lavfi:") or is_many(name) or Path(name).is_file()


def _render_in_one_pass(job: RenderJob, source: Source, observer: RenderObserver) -> RenderReport:
    from streamdream.dream.build import build_dreamer
    from streamdream.render.pipeline import render_video

    stream = job.run.stream
    dreamer = cache(partial(build_dreamer, stream))  # loads PyTorch, so it is called when the output was checked
    with (GuideVideo(job.run.dream) as guide_video,
          open_automation(job.automation_files, job.run, job.input, job.run.render.start) as automation,
          open_sink(job.output, source, job.run.render, job.overwrite, job.input,
                    recipe=lambda: compose_recipe(job, dreamer())) as sink):
        _log_warnings([*source.warnings, *sink.warnings])
        observer.began(source.frame_count, 0, None, float(source.rate))
        return render_video(source, sink, dreamer(), automation, observer.frame, guide_video.references_at,
                            lambda model: build_dreamer(replace(stream, model=model)))


def _log_warnings(warnings: list[str]) -> None:
    """What is known before the long run; the report has it, too."""
    for warning in warnings:
        log.warning("%s", warning)


class _ChunkedRender:
    """``run`` carries out the plan in ``folder``, after making it where there is none."""

    def __init__(self, job: RenderJob, options: PlanOptions, source: Source, output: ChunkedOutput, folder: WorkFolder,
                 observer: RenderObserver, host: RenderHost) -> None:
        self._job, self._options, self._source, self._output = job, options, source, output
        self._folder, self._observer, self._host = folder, observer, host

    def run(self) -> RenderReport:
        plan = self._load_plan()
        is_joined = plan is not None and self._folder.is_result(plan)
        if not is_joined:
            is_joining = plan is not None and plan.result is not None and self._output.joins_in_place
            check_output(self._job.output, self._source, self._job.run.render, self._job.overwrite or is_joining,
                         self._job.input)
            _log_warnings([*self._source.warnings, *self._output.check()])
            files = replace(self._job.automation_files, overwrite=self._job.overwrite or plan is not None)
            with open_automation(files, self._job.run, self._job.input):
                pass  # its mistakes are reported before a backend is chosen
            check_space(self._job, self._source, self._folder.path, plan.frames_done if plan else 0)
        executor = self._executor()
        stream, choice = self._fix_stream(plan, executor)
        reason = choice.reason if choice else "as the interrupted render"
        identity = identify(self._job, stream)
        if plan is not None:
            check_identity(plan.identity, identity, self._job.output)
        else:
            plan = RenderPlan(identity, self._job.to_json(), self._source.time_base.as_integer_ratio(),
                              self._job.run.render.chunk_frames, (Chunk(0, 0, 0, None, 0, STATE_NONE),))
            if executor:
                plan = self._plan_ahead(plan, stream, executor.parallel)
            self._folder.save(plan)
        done_frames = plan.frames_done
        self._observer.began(plan.frames or self._source.frame_count, done_frames, self._folder,
                             float(self._source.rate))
        dreamer = self._host.build_dreamer(stream)
        report = None
        if executor and not self._folder.is_planned:
            log.info("this render was begun by one process, and one resumes it")
        if executor and self._folder.is_planned and not is_joined:
            render_chunks(executor, self._folder, self._observer.frame)
        elif not is_joined:
            for chunks in sorted(plan.missing_ranges(), key=lambda chunks: bool(chunks[0].blend)):
                report = render_range(self._folder, chunks, self._job, stream, self._output, dreamer,
                                      self._observer.frame, self._host)
        report = report or summarize(dreamer, dreamer.options, self._job.run.dream,
                                     (self._source.height, self._source.width), 0, [], decoder=self._source.decoder)
        report = self._finish(report, compose_recipe(self._job, dreamer, self._host.names))
        if self._job.run.stream.backend == "auto":
            report = replace(report, reason=reason)
        return replace(report, resumed_frames=done_frames)

    def _executor(self) -> Executor | None:
        """Return who renders; None for this process alone. Raises UsageError or MissingPackage for a cluster."""
        options, stream = self._options, self._job.run.stream
        if options.cluster:
            from streamdream.render.ray_cluster import RayExecutor
            from streamdream.render.ray_connection import parse_resources
            from streamdream.system.torch_threads import effective_threads

            return RayExecutor(options.cluster, parse_resources(options.chunk_resources), effective_threads(stream))
        return ProcessExecutor(options.workers, stream.device) if options.workers > 1 else None

    def _fix_stream(self, plan: RenderPlan | None, executor: Executor | None
                    ) -> tuple[StreamSettings, BackendChoice | None]:
        from streamdream.system.torch_threads import effective_threads

        if self._host.shares_backend:
            stream = self._job.run.stream
            return replace(stream, threads=plan.identity["threads"] if plan else effective_threads(stream)), None
        return fix_stream(self._job, self._source, plan, self._source.frame_count >= MIN_FRAMES_TO_BUILD,
                          executor.threads if executor else lambda usable: usable)

    def _plan_ahead(self, plan: RenderPlan, stream: StreamSettings, parts: int) -> RenderPlan:
        """Split the render at its scene cuts."""
        from streamdream.dream.build import build_dreamer

        scan = scan_in_parallel(self._job, stream, self._source, lambda: build_dreamer(stream),
                                lambda frames: self._observer.scanned(frames, self._source.frame_count))
        shots = sum(chunk.state_before in (STATE_NONE, STATE_CUT) for chunk in scan.chunks)
        chunks = scan.chunks if self._options.seams == "exact" else split_long_shots(scan, parts)
        seams = sum(chunk.state_before == STATE_WARM_UP for chunk in chunks)
        log.info("%d frames in %d shots, %d seams within shots", len(scan.source_pts), shots, seams)
        self._folder.save_times(scan.source_pts)
        return replace(plan, chunks=chunks, frames=len(scan.source_pts), times_sha256=self._folder.times_digest())

    def _load_plan(self) -> RenderPlan | None:
        try:
            plan = self._folder.load()
        except DamagedPlan as error:
            log.warning("the unfinished render of %s cannot be resumed: %s; it starts over", self._job.output, error)
            plan = None
        if plan is None or self._options.restart:
            self._folder.clear()
            return None
        return plan

    def _finish(self, report: RenderReport, recipe_text: str) -> RenderReport:
        """Join the chunks, unless that is done already; remove the folder."""
        plan, source = self._folder.plan, self._source
        assert plan is not None
        if not plan.complete and not self._folder.is_result(plan):
            raise StreamdreamError(f"chunks of {self._job.output} are missing; the same command renders them")
        warnings = list(plan.warnings)
        if not self._folder.is_result(plan):
            if len(plan.chunks) >= MIN_CHUNKS_TO_REPORT:
                log.info("joining %d chunks", len(plan.chunks))
            clock = self._output.new_clock()
            for pts in self._folder.source_pts_before(plan.frames):
                clock(int(pts) * source.time_base)
            try:
                warnings += self._output.join(self._folder, clock, self._folder.save_result, recipe_text)
            except NameTaken:  # the output is whole, under a name of its own
                self._folder.remove()
                raise
        self._folder.remove()
        return replace(report, frames=plan.frames, cuts=sum(chunk.cuts for chunk in plan.chunks), warnings=warnings)


def fix_stream(job: RenderJob, source: Source, plan: RenderPlan | None, may_build: bool,
               share: Callable[[int], int] = lambda usable: usable) -> tuple[StreamSettings, BackendChoice | None]:
    """The settings with a backend, a precision, a path of frames and a number of threads in place of ``auto``: those of
    the plan, or those that are best here, with the choice. Takes the first frame of ``source``, and raises as
    ``choose_backend``.
    """
    from streamdream.dream.build import choose_backend, resolve_frame_path
    from streamdream.system.torch_threads import effective_threads

    stream = job.run.stream
    if plan is not None:
        fixed = {name: plan.identity[name] for name in ("backend", "precision", "frame_path")
                 if getattr(stream, name) == "auto"}
        return replace(stream, threads=stream.threads or plan.identity["threads"], **fixed), None
    with GuideVideo(job.run.dream) as guide_video:
        image, references = next(iter(source)).image, guide_video.references_at(0.0)
        choice = choose_backend(stream, image, job.run.dream, references, may_build)
    if stream.backend == "auto":
        log.info("%s", choice.reason)
    threads = stream.threads or share(effective_threads(stream))
    stream = replace(stream, backend=choice.backend, precision=choice.precision, threads=threads)
    return replace(stream, frame_path=resolve_frame_path(stream)), choice
