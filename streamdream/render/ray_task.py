"""What a node of a Ray cluster does: render one chunk of a plan, from the state before it, and return its files."""
from __future__ import annotations

import dataclasses
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import __version__
from streamdream.errors import StreamdreamError, error_text
from streamdream.render import block_file
from streamdream.render.block_file import BlockFile
from streamdream.render.identity import describe_source, package_versions, weights_digest
from streamdream.render.job import RenderJob, open_job_source, with_pictures
from streamdream.render.plan import Chunk, RenderPlan, differences, warm_up_file
from streamdream.render.work_folder import TIMES_FILE, ChunkStore
from streamdream.system import process_tuning

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.media.sources.video import FileSource
    from streamdream.render.host import RenderHost
    from streamdream.settings import StreamSettings


REPORT_SECONDS = 0.25


class NodeRefused(StreamdreamError):
    """The node of that identifier would give other frames, or cannot read the input."""

    def __init__(self, reason: str, node: str) -> None:
        super().__init__(reason, node)
        self.reason, self.node = reason, node

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class HandedFile:
    """A file of the driver's machine, whose blocks come through ``ray_exchange.Exchange`` when they are read."""

    source: Mapping[str, Any]
    """``identity.describe_source``."""
    size: int

    def is_here(self, path: str) -> bool:
        """Whether this machine has the same file under the same path: on storage that both share."""
        return Path(path).is_file() and describe_source(path) == self.source


@dataclass(frozen=True)
class ClusterJob:
    """All that a node needs of a render; one object in the store."""

    plan_text: str
    times: bytes
    """Of all frames: the content of the plan's ``TIMES_FILE``."""
    files: Mapping[str, HandedFile]
    """Path -> file: the input, and what the settings name."""
    exchange: Any
    """The actor ``ray_exchange.Exchange``."""

    def fetch(self, path: str, number: int) -> bytes:
        """Return a block of one of the files."""
        import ray

        data: bytes = ray.get(ray.get(self.exchange.block.remote((path, number)))[0])
        return data


def check_node(cluster_job: ClusterJob) -> None:
    """Raises NodeRefused with what differs from the machine that made the plan."""
    import ray

    process_tuning.tune_process()
    plan = RenderPlan.from_json(cluster_job.plan_text)
    job = RenderJob.from_json(plan.job)
    here = _identity(job.run.stream.model)
    if job.input not in cluster_job.files:  # pictures, which are not handed over
        _enter_folder(plan)
        here["source"] = describe_source(job.input)
    there = {name: plan.identity[name] for name in here}
    if found := list(differences(there, here)):
        raise NodeRefused("; ".join(found[:3]), ray.get_runtime_context().get_node_id())


@lru_cache(maxsize=1)
def _identity(model: str) -> dict[str, Any]:
    """What this process shares with the driver; as of ``identity.identify``."""
    return {"versions": {"streamdream": __version__, **package_versions()}, "weights": weights_digest(model)}


def render_chunk(cluster_job: ClusterJob, number: int, state: bytes | None, residuals: bytes | None
                 ) -> tuple[bytes, bytes | None, dict[str, Any]]:
    """Render the chunk of that number.

    ``state`` is the state file of the chunk before, ``residuals`` those that fade in over it, where the plan says so.
    Returns its own state file, the residuals of its warm-up, and ``chunk``, ``warnings`` and ``files`` (name -> bytes).
    """
    process_tuning.tune_process()
    from streamdream.render.chunk_render import render_range
    from streamdream.render.chunked_output import chunked_output

    exchange = cluster_job.exchange
    exchange.begin.remote(number)
    check_node(cluster_job)
    plan = RenderPlan.from_json(cluster_job.plan_text)
    chunk = plan.chunks[number]
    with _naming_this_node(), tempfile.TemporaryDirectory(prefix="streamdream-chunk-") as folder:
        job, stream, host = _prepare(cluster_job, plan, Path(folder))
        with host.open_source(job) as source:
            output = chunked_output(job, source)
        assert output is not None
        store = CollectingStore(Path(folder), output.suffix, job.output, plan)
        (store.path / TIMES_FILE).write_bytes(cluster_job.times)
        if state is not None:
            (store.path / chunk.state_before).write_bytes(state)
        if residuals is not None:
            (store.path / chunk.blend).write_bytes(residuals)
        render_range(store, (chunk,), job, stream, output, host.build_dreamer(stream),
                     _reporter(exchange, chunk), host)
        assert store.done is not None
        warm_up = store.path / warm_up_file(number)
        return ((store.path / chunk.state_file).read_bytes(), warm_up.read_bytes() if warm_up.exists() else None,
                {"chunk": dataclasses.asdict(store.done), "warnings": store.warnings, "files": _files(store, chunk)})


@contextmanager
def _naming_this_node() -> Iterator[None]:
    """Errors say which node they are of: its disk is full, say."""
    try:
        yield
    except (StreamdreamError, OSError) as error:
        text = str(error) if isinstance(error, StreamdreamError) else error_text(error)
        raise StreamdreamError(f"{text} (on node {platform.node()})") from None


def _reporter(exchange: Any, chunk: Chunk) -> Callable[[int], None]:
    """Return an ``on_frame`` that tells the exchange how far the chunk is; each call costs half a millisecond."""
    reported = time.monotonic()

    def on_frame(frame: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            exchange.set_frames.remote(chunk.number, frame - chunk.first_frame)

    return on_frame


class CollectingStore(ChunkStore):
    """Holds the one chunk that is rendered; ``done`` when it is whole."""

    done: Chunk | None = None
    warnings: Sequence[str] = ()

    def add_chunk(self, done: Chunk, following: Chunk | None, warnings: list[str]) -> None:
        super().add_chunk(done, following, warnings)
        self.done, self.warnings = done, list(warnings)


def _files(store: ChunkStore, chunk: Chunk) -> dict[str, bytes]:
    path = store.file(chunk)
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return {str(file.relative_to(store.path)): file.read_bytes() for file in paths}


def _prepare(cluster_job: ClusterJob, plan: RenderPlan, folder: Path) -> tuple[RenderJob, StreamSettings, RenderHost]:
    """The job with the paths of this machine, its settings without ``auto``, and how it opens its input."""
    from streamdream.render.host import RenderHost

    job, identity = RenderJob.from_json(plan.job), plan.identity
    _enter_folder(plan)
    names: dict[str, str] = {}
    open_source: Callable[[RenderJob], FileSource] = open_job_source
    replaced = {}
    for path, file in cluster_job.files.items():
        if file.is_here(path):
            continue
        fetch = partial(cluster_job.fetch, path)
        if path == job.input:
            open_source = partial(_open_blocks, fetch, file.size)
        else:
            local = folder / f"file-{len(names)}{Path(path).suffix}"
            with local.open("wb") as copy:
                copy.writelines(map(fetch, range(block_file.count_blocks(file.size))))
            replaced[path], names[str(local)] = str(local), Path(path).name
    dream = job.run.dream
    dream = replace(dream, guide=replaced.get(dream.guide, dream.guide), style=replaced.get(dream.style, dream.style),
                    mask=replaced.get(dream.mask, dream.mask))
    stream = replace(job.run.stream, device="auto", backend=identity["backend"], precision=identity["precision"],
                     frame_path=identity["frame_path"], threads=identity["threads"])
    job = replace(job, run=replace(job.run, dream=dream, stream=stream),
                  settings_track=replaced.get(job.settings_track, job.settings_track), record_settings="")
    return job, stream, RenderHost(_dreamer, open_source=open_source, names=names)


def _enter_folder(plan: RenderPlan) -> None:
    """Paths of the job are relative to a folder, which only shared storage has."""
    if Path(plan.job["folder"]).is_dir():
        os.chdir(plan.job["folder"])


@lru_cache(maxsize=1)
def _dreamer(stream: StreamSettings) -> Dreamer:
    """Keep the last one: Ray gives a process one chunk after the other."""
    from streamdream.dream.build import build_dreamer

    return build_dreamer(stream)


def _open_blocks(fetch: Callable[[int], bytes], size: int, job: RenderJob) -> FileSource:
    """As ``open_job_source``, of a file that is only on the driver's machine."""
    from streamdream.media.hardware_decoding import Hwaccel
    from streamdream.media.input_container import SAFE_FORMATS, TimeRange, open_container
    from streamdream.media.sources.av_source import AvSource

    def open_file(**options: Any) -> Any:
        return open_container(BlockFile(fetch, size), f"{job.input} is damaged, or not a video",
                              options={"format_whitelist": SAFE_FORMATS}, **options)

    render = job.run.render
    source = AvSource(job.input, open_file, TimeRange.of(render.start, render.duration, render.end), render.deinterlace,
                      hwaccel=Hwaccel(render.hwaccel, job.run.stream.device))
    return with_pictures(source, job.run.stream.field_height)
