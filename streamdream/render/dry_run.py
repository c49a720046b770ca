"""Forecast a render: what becomes of each stream, how long it takes, how large it gets. Nothing is written."""
from __future__ import annotations

import io
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.automation.opening import check_layers
from streamdream.dream.field_check import checked_source
from streamdream.media.input_container import TimeRange, is_pattern, main_video_stream, open_file
from streamdream.media.packet_scan import PacketScan, scan_packets
from streamdream.media.picture_files import is_picture_input, is_video_file, picture_files
from streamdream.media.pyav import open_av
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.registry import check_output
from streamdream.media.sinks.stream_copy import StreamCopier
from streamdream.media.sinks.stream_routes import StreamDecision, describe_stream
from streamdream.media.sinks.video_encoder import VideoEncoder
from streamdream.render.chunked_output import chunked_output
from streamdream.render.disk_space import DiskNeed
from streamdream.render.file_render import MIN_FRAMES_TO_BUILD, PlanOptions, can_resume, fix_stream
from streamdream.render.identity import identify
from streamdream.render.job import open_job_source
from streamdream.render.plan import DamagedPlan, RenderPlan, check_identity
from streamdream.render.sample_encoding import HEADER_BYTES
from streamdream.render.samples import Costs, Sampler
from streamdream.render.work_folder import default_path, read_plan
from streamdream.system.stats import peak_rss_mb

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob

SAMPLE_SECONDS = 11.0
SCAN_SECONDS = 2.0
PROCESS_SECONDS = 1.0
"""To begin a process and to end it."""
STATE_BYTES_PER_PIXEL = 13
"""Of the field, for each chunk: the residual in float32, and a grey picture."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a render is going to do; ``as_json`` is what ``--dry-run --json`` prints."""

    input: str
    output: str
    streams: tuple[StreamDecision, ...]
    frames: int
    """0 where the input does not tell."""
    frames_exact: bool
    size: str
    field: str
    model: str
    layers: str
    backend: str
    precision: str
    threads: int
    device: str
    reason: str
    decoder: str
    decoder_reason: str
    """Why software decodes, where a device might."""
    would_build: bool
    """Whether engines are built first, which takes some seconds each, and may make the rest faster than said here."""
    seconds: float | None
    """Of the whole command; None where the number of frames is unknown."""
    start_seconds: float
    """Until the first frame is done."""
    frame_seconds: float
    sampled_frames: int
    sampled_places: int
    output_bytes: int
    """Of the video, and of what is copied."""
    copied_bytes: int
    disk_bytes: int
    """Of chunks and result together."""
    disks: tuple[dict[str, Any], ...]
    """For each file system: ``folder``, ``needed_bytes``, ``free_bytes``."""
    peak_rss_mb: float
    """Of the samples."""
    chunks: int
    """0 for a render in one pass."""
    chunk_frames: int
    work_folder: str
    resumed_frames: int
    """Those that are there from before."""
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return all(disk["needed_bytes"] <= disk["free_bytes"] for disk in self.disks)

    def as_json(self) -> dict[str, Any]:
        return {"dry_run": True, **asdict(self), "fits": self.fits}


def forecast_render(job: RenderJob, options: PlanOptions) -> Forecast:
    """Dream a few samples of the job. Raises what ``render_file`` raises before its first frame."""
    from streamdream.dream.build import build_dreamer

    began = time.perf_counter()
    with open_job_source(job) as source:
        checked_source(source, job.run, has_track=bool(job.settings_track))
        check_layers(job.run.dream, job.run.stream.model)  # before PyTorch is loaded
        storage = chunked_output(job, source) if can_resume(job.input) else None
        path = default_path(job.output, options.work_folder) if storage else None
        plan, warnings = _find_plan(path, options)
        if plan is None:
            check_output(job.output, source, job.run.render, job.overwrite, job.input)
        streams = describe_streams(job, source, warnings)
        begun_seconds = time.perf_counter() - began
        scan = _scan(job)
        frames = scan.pictures if scan and scan.complete else source.frame_count
        length_seconds = float(source.frame_count / source.rate)
        began = time.perf_counter()
        stream, choice = fix_stream(job, source, plan, may_build=False)
        if plan is not None:
            check_identity(plan.identity, identify(job, stream), job.output)
        dreamer = build_dreamer(stream)
        load_seconds = PROCESS_SECONDS + begun_seconds + time.perf_counter() - began
        costs = Sampler(job, stream, dreamer).measure(source, frames, length_seconds, SAMPLE_SECONDS)
        frames = costs.all_frames or frames
        field = dreamer.options.field_size(source.height, source.width)
        return Forecast(
            input=job.shown_input, output=job.output, streams=streams, frames=frames,
            frames_exact=bool(costs.all_frames) or _is_exact(job, scan, source),
            size=f"{source.width}x{source.height}", field=f"{field[1]}x{field[0]}", model=dreamer.model.name,
            layers=job.run.dream.layers, backend=stream.backend, precision=stream.precision, threads=stream.threads,
            device=str(dreamer.backend.device), reason=choice.reason if choice else "as the render began",
            decoder=source.decoder, decoder_reason=source.decoder_reason,
            would_build=bool(choice and choice.would_build and source.frame_count >= MIN_FRAMES_TO_BUILD),
            seconds=_expected_seconds(costs, load_seconds, frames, plan),
            start_seconds=round(load_seconds + costs.first_seconds, 2), frame_seconds=round(costs.frame_seconds, 4),
            sampled_frames=costs.frames, sampled_places=costs.places,
            **_describe_sizes(job, costs, frames, path, plan, _copied_bytes(scan, streams, frames), field),
            resumed_frames=plan.frames_done if plan else 0, peak_rss_mb=round(peak_rss_mb(), 1),
            warnings=tuple(dict.fromkeys([*warnings, *source.warnings])))


def _find_plan(path: Path | None, options: PlanOptions) -> tuple[RenderPlan | None, list[str]]:
    if path is None or options.restart:
        return None, []
    try:
        return read_plan(path), []
    except DamagedPlan as error:
        return None, [f"the unfinished render cannot be gone on with: {error}; it would begin anew"]


def describe_streams(job: RenderJob, source: Source, warnings: list[str]) -> tuple[StreamDecision, ...]:
    """What becomes of each stream; adds what the encoder warns of. Raises UsageError or UnknownName for an encoder
    that the output cannot hold.
    """
    kind = CONTAINERS.get(Path(job.output).suffix.lower())
    render, is_file = job.run.render, is_video_file(job.input)
    if kind is None:
        what = "a picture each" if is_pattern(job.output) else "nowhere"
        dreamed = StreamDecision(0, "video", "encoded", f"the picture is dreamed and written {what}")
        return dreamed, *(_all_left_out(job) if is_file else ())
    with open_av(io.BytesIO(), "w", format=kind.format) as container:
        encoder = VideoEncoder(container, kind, job.output, source, render)
        warnings += encoder.warnings
        if not is_file:
            name = encoder.stream.codec_context.name
            return (StreamDecision(0, "video", "encoded", f"the picture is dreamed and encoded as {name}"),)
        copier = StreamCopier(job.input, container, encoder.stream, render, warnings)
        copier.close()
    return tuple(copier.decisions)


def _all_left_out(job: RenderJob) -> tuple[StreamDecision, ...]:
    """The streams of a file whose output is no video."""
    with open_file(job.input) as container:
        main = main_video_stream(container)
        return tuple(StreamDecision(stream.index, describe_stream(stream), "left out", "only a video file can hold it")
                     for stream in container.streams if stream is not main)


def _scan(job: RenderJob) -> PacketScan | None:
    if not is_video_file(job.input):
        return None
    render = job.run.render
    return scan_packets(job.input, TimeRange.of(render.start, render.duration, render.end), SCAN_SECONDS)


def _is_exact(job: RenderJob, scan: PacketScan | None, source: Source) -> bool:
    """Whether all pictures were counted: by their packets, or by their files."""
    if scan is not None:
        return scan.complete
    return is_picture_input(job.input) and source.frame_count == (len(picture_files(job.input)) or 1)


def _copied_bytes(scan: PacketScan | None, streams: tuple[StreamDecision, ...], frames: int) -> int:
    """Bytes of the streams that are kept; if only a part was scanned, the rest is taken to be like it."""
    if scan is None or not scan.pictures:
        return 0
    kept = sum(scan.stream_bytes.get(stream.index, 0) for stream in streams if stream.action == "kept")
    return round(kept * (1.0 if scan.complete else max(frames / scan.pictures, 1.0)))


def _expected_seconds(costs: Costs, load_seconds: float, frames: int, plan: RenderPlan | None) -> float | None:
    if not frames:
        return None
    missing = frames - (plan.frames_done if plan else 0)
    dreaming = costs.first_seconds + costs.frame_seconds * (missing - 1) if missing > 0 else 0.0
    return round(load_seconds + dreaming + costs.second_pass_seconds * frames, 1)


def _describe_sizes(job: RenderJob, costs: Costs, frames: int, path: Path | None, plan: RenderPlan | None,
                    copied_bytes: int, field: tuple[int, int]) -> dict[str, Any]:
    """The fields of a ``Forecast`` about plan and disk; ``path`` is None for a render in one pass."""
    chunk_frames, folder = job.run.render.chunk_frames, Path(job.output).absolute().parent
    chunks = math.ceil(frames / chunk_frames) if path else 0
    headers = HEADER_BYTES if costs.frame_bytes and not is_pattern(job.output) else 0
    result_bytes = round(frames * costs.frame_bytes) + copied_bytes + headers
    stored_bytes = chunks * math.prod(field) * STATE_BYTES_PER_PIXEL
    there = sum(chunk.bytes for chunk in plan.chunks if chunk.done) if plan else 0
    if path:
        stored_bytes += round(frames * costs.stored_frame_bytes)
    joined_bytes = 0 if path and is_pattern(job.output) else result_bytes  # pictures become the result by links
    need = DiskNeed(path.parent if path else folder, max(stored_bytes - there, 0), folder, joined_bytes)
    disks = tuple({"folder": str(folder), "needed_bytes": needed, "free_bytes": free}
                  for folder, needed, free in need.by_disk() if needed)
    return {"output_bytes": result_bytes, "copied_bytes": copied_bytes, "disk_bytes": stored_bytes + joined_bytes,
            "disks": disks, "chunks": chunks, "chunk_frames": chunk_frames, "work_folder": str(path or "")}
