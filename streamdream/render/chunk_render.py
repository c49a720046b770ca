"""Render some chunks of a plan, from nothing or from the state that another chunk has left."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from streamdream.automation.opening import open_automation
from streamdream.media.sinks.threaded import ThreadedSink
from streamdream.media.timestamps import SourcePosition
from streamdream.render import recipe
from streamdream.render.chunk_writer import ChunkWriter
from streamdream.render.guide_video import GuideVideo
from streamdream.render.host import COMMAND_LINE, RenderHost
from streamdream.render.plan import STATE_WARM_UP, Chunk, warm_up_file
from streamdream.render.seams import WARM_UP_FRAMES, Crossfade, WarmUp, load_residuals

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import FileSource, Source
    from streamdream.render.chunked_output import ChunkedOutput
    from streamdream.render.job import RenderJob
    from streamdream.render.pipeline import RenderStart
    from streamdream.render.plan import RenderPlan
    from streamdream.render.report import RenderReport
    from streamdream.render.work_folder import ChunkStore
    from streamdream.settings import StreamSettings


def render_range(store: ChunkStore, chunks: tuple[Chunk, ...], job: RenderJob, stream: StreamSettings,
                 output: ChunkedOutput, dreamer: Dreamer, on_frame: Callable[[int], None],
                 host: RenderHost = COMMAND_LINE) -> RenderReport:
    """Render chunks that follow each other; the last one up to the next that is in the plan, or to the end.

    ``stream`` is that of the job, with nothing left to ``auto``. ``on_frame`` gets the index of the next frame.
    """
    from streamdream.render.pipeline import render_video

    first, plan = chunks[0], store.plan
    assert plan is not None
    following = plan.next_chunk(chunks[-1])
    files = job.automation_files
    if following is not None or store.is_planned:
        files = replace(files, record_settings="")  # the last range records it, or the scan did, from the start on
    elif first.first_frame:
        files = replace(files, overwrite=True)  # what the interrupted run recorded
    warm_up = WARM_UP_FRAMES if first.state_before == STATE_WARM_UP else 0
    start_frame = first.first_frame - warm_up
    with host.open_source(job) as source:
        clock, earlier = output.new_clock(), store.source_pts_before(first.first_frame)
        seconds = [int(pts) * source.time_base for pts in earlier]
        for time in seconds:
            clock(time)
        start = _start_of(store, first, start_frame, [float(time) for time in seconds[:start_frame]])
        skipped = _seek(source, plan, start_frame)
        end = None if following is None else skipped + following.first_frame - start_frame
        writer = ChunkWriter(store, source, output, clock, first, start.state.cuts,
                             compose_recipe(job, dreamer, host.names))
        with (GuideVideo(job.run.dream) as guide_video, ThreadedSink(writer) as sink,
              open_automation(files, job.run, job.input, job.run.render.start) as automation):
            checkpoints: ChunkWriter | WarmUp = writer
            shown: Sink = sink
            if warm_up:
                checkpoints = shown = WarmUp(warm_up, store.path / warm_up_file(first.number), sink, writer)
            return render_video(FrameRange(source, skipped, end), host.wrap_sink(shown), dreamer, automation, on_frame,
                                guide_video.references_at,
                                lambda model: host.build_dreamer(replace(stream, model=model)), host.device_slot,
                                host.adapt_options(_options_for(store, first, dreamer)), start, checkpoints)


def _start_of(store: ChunkStore, chunk: Chunk, start_frame: int, earlier_seconds: list[float]) -> RenderStart:
    from streamdream.dream.dreamer import DreamState
    from streamdream.render.pipeline import RenderStart

    if chunk.begins_anew:
        return RenderStart(DreamState(index=start_frame), earlier_seconds)
    record = store.load_record(chunk.state_before)
    return RenderStart(record.state, earlier_seconds, record.frozen_frame)


def _options_for(store: ChunkStore, chunk: Chunk, dreamer: Dreamer) -> DreamOptions:
    if not chunk.blend:
        return dreamer.options
    return replace(dreamer.options, shown_residual=Crossfade(chunk.first_frame,
                                                             load_residuals(store.path / chunk.blend)))


def _seek(source: FileSource, plan: RenderPlan, frame: int) -> int:
    """Go to the last chunk at or before that frame which the source can find; return how many frames to skip there."""
    known = [chunk for chunk in plan.chunks if chunk.first_frame <= frame and (chunk.position or not chunk.first_frame)]
    chunk = known[-1]
    if chunk.position is not None and chunk.first_frame:
        source.resume_at(SourcePosition.from_json(chunk.position), chunk.first_frame, chunk.checksum)
    return frame - chunk.first_frame


def compose_recipe(job: RenderJob, dreamer: Dreamer, names: Mapping[str, str] | None = None) -> str:
    """``names`` as ``RenderHost.names``."""
    run = job.run
    return recipe.compose(dreamer, (run.dream, run.stream, run.automation, run.render), job.settings_track, names)


class FrameRange:
    """The frames of a source from ``start`` to ``end``, which None leaves open; both count from where it is now."""

    def __init__(self, source: Source, start: int, end: int | None) -> None:
        self._source, self._start, self._end = source, start, end
        self.name, self.height, self.width, self.warnings = source.name, source.height, source.width, source.warnings

    @property
    def decoder(self) -> str:
        return self._source.decoder

    def __iter__(self) -> Iterator[Frame]:
        return islice(self._source, self._start, self._end)
