"""Render the missing chunks of a plan on a Ray cluster: each is a task, which gets the state that the one before it
leaves. Ray places the tasks, and runs those of lost nodes and killed workers again.

    driver ──plan, blocks of the input──▶ object store ──▶ task of a chunk ──state──▶ task of the next one
       ▲                                                       │
       └───────────────── files of whole chunks ◀──────────────┘
"""
from __future__ import annotations

import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.errors import MissingPackage, StreamdreamError, UsageError, error_text
from streamdream.render import block_file, ray_task
from streamdream.render.identity import describe_source
from streamdream.render.job import RenderJob
from streamdream.render.plan import Chunk, warm_up_file
from streamdream.render.ray_task import ClusterJob, HandedFile
from streamdream.render.work_folder import PLAN_FILE, TIMES_FILE, WorkFolder

if TYPE_CHECKING:
    from streamdream.render.plan import RenderPlan

MAX_RETRIES = 20
"""How often Ray runs a task again whose node or process is lost. A chunk that ends its process each time fails then."""
POLL_SECONDS = 0.5
NODE_LABEL = "ray.io/node-id"
RESOURCES = {"cpu": "CPU", "gpu": "GPU"}
ADDRESS = re.compile(r"ray://(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")
CONNECT_SECONDS = 5.0
AMOUNT = re.compile(r"([\w-]+)=(\d+(?:\.\d+)?)")
AMOUNTS = re.compile(rf"{AMOUNT.pattern}(?:,{AMOUNT.pattern})*")
log = logging.getLogger(__name__)


def parse_resources(text: str) -> dict[str, float]:
    """``cpu=4,gpu=1`` -> {"CPU": 4.0, "GPU": 1.0}; other names are a cluster's own. Raises UsageError."""
    if text and not AMOUNTS.fullmatch(text):
        raise UsageError(f"--chunk-resources {text}: give amounts, as in cpu=4 or cpu=2,gpu=1")
    found = {RESOURCES.get(name.lower(), name): float(amount) for name, amount in AMOUNT.findall(text)}
    if 0 in found.values():
        raise UsageError(f"--chunk-resources {text}: an amount is above 0")
    return found


def connect(address: str) -> Any:
    """Return the module ``ray``, connected. Raises MissingPackage, or UsageError when there is no such cluster."""
    log.info("connecting to the cluster %s", address)  # Ray takes seconds to load
    try:
        import ray
    except ImportError:
        raise MissingPackage("--cluster needs Ray: pip install 'streamdream[ray]'") from None
    if ray.is_initialized():
        return ray
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError, OSError, ValueError) as error:
        here = "no Ray cluster runs here; ray start --head begins one" if address == "auto" else error_text(error)
        raise UsageError(f"--cluster {address}: {here}") from None
    return ray


def check_address(address: str) -> None:
    """Raises UsageError for what is no address, or where nobody answers: Ray itself tries for half a minute."""
    if address == "auto":
        return
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"--cluster {address}: it is auto, or an address such as ray://head:10001")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--cluster {address}: nobody answers there ({error_text(error)})") from None


class RayExecutor:
    """A cluster. ``resources`` of each chunk are by default a GPU where the cluster has one, else as many cores as
    ``threads``. Raises as ``connect``.
    """

    def __init__(self, address: str, resources: Mapping[str, float], threads: int) -> None:
        self._ray = connect(address)
        self._total = self._ray.cluster_resources()
        self._threads = int(resources.get("CPU", threads))
        self.resources = dict(resources) or ({"GPU": 1.0} if self._total.get("GPU") else {"CPU": float(threads)})
        self._refused: set[str] = set()
        """Nodes that would give other frames."""
        self._told: Counter[int] = Counter()
        """How often the user knows that a chunk was begun."""

    @property
    def parallel(self) -> int:
        return max(1, int(min(self._total.get(name, 0) // amount for name, amount in self.resources.items())))

    def threads(self, usable: int) -> int:
        return self._threads

    def render(self, folder: WorkFolder, on_frame: Callable[[int], None]) -> Generator[tuple[Chunk, list[str]]]:
        """As of ``Executor``."""
        ray, plan = self._ray, folder.plan
        assert plan is not None
        cluster_job = self._hand_over(folder, plan)
        self._check_nodes(cluster_job)
        progress = ray.remote(num_cpus=0, max_restarts=-1)(Progress).remote()
        tasks = _Tasks(ray, self._options(plan.identity["threads"]), folder, ray.put(cluster_job), progress)
        longest_first = sorted(plan.missing_ranges(), key=plan.count_frames, reverse=True)
        waiting = {tasks.submit(chunk): chunk for chunks in longest_first for chunk in chunks}
        try:
            while waiting:
                on_frame(plan.frames_done + self._watch(progress, waiting.values()))
                for ref in ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)[0]:
                    yield tasks.fetch(waiting.pop(ref))
                    plan = folder.plan or plan
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            raise StreamdreamError(str(cause) if isinstance(cause, StreamdreamError) else
                                   f"the cluster gave up: {error_text(error)}") from None
        finally:
            for ref in waiting:
                with suppress(Exception):
                    ray.cancel(ref, force=True)

    def _options(self, threads: int) -> dict[str, Any]:
        """Return the options of the task of a chunk."""
        others = {name: amount for name, amount in self.resources.items() if name not in RESOURCES.values()}
        excluded = {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(self._refused))})"}} if self._refused else {}
        return {"num_cpus": self.resources.get("CPU", 1), "num_gpus": self.resources.get("GPU", 0), "resources": others,
                "max_retries": MAX_RETRIES, "num_returns": 3, **excluded,
                # Ray sets it to 1, or to the cores of the task: with another number the frames differ
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}

    def _hand_over(self, folder: WorkFolder, plan: RenderPlan) -> ClusterJob:
        job = RenderJob.from_json(plan.job)
        dream = job.run.dream
        names = {job.input, dream.guide, dream.style, dream.mask, job.settings_track, job.run.automation.sound}
        files = {name: self._put(name) for name in names if name and Path(name).is_file()}
        return ClusterJob((folder.path / PLAN_FILE).read_text(encoding="utf-8"),
                          (folder.path / TIMES_FILE).read_bytes(), files)

    def _put(self, path: str) -> HandedFile:
        blocks = [self._ray.put(block_file.read_block(path, *block)) for block in block_file.blocks_of(path)]
        return HandedFile(describe_source(path), Path(path).stat().st_size, blocks)

    def _check_nodes(self, cluster_job: ClusterJob) -> None:
        """Refuse the nodes that would give other frames. Raises UsageError when no other is left."""
        reason = "it has none"
        for node in self._alive():
            check = self._ray.remote(num_cpus=0, label_selector={NODE_LABEL: node})(ray_task.check_node)
            try:
                self._ray.get(check.remote(cluster_job))
            except Exception as error:  # NodeRefused, or streamdream is not installed there
                reason = error_text(getattr(error, "cause", None) or error)
                self._refused.add(node)
                log.warning("node %s is not used: %s", node[:8], reason)
        if not self._alive() - self._refused:
            raise UsageError(f"no node of the cluster can render this: {reason}")

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _watch(self, progress: Any, chunks: Iterable[Chunk]) -> int:
        """Tell of what is rendered again; return the number of frames of these chunks that are done."""
        try:
            frames, begins = self._ray.get(progress.counts.remote(), timeout=POLL_SECONDS)
        except self._ray.exceptions.RayError:  # its node is busy, or lost
            return 0
        for number, count in begins.items():
            if count > max(1, self._told[number]):
                log.warning("chunk %d is rendered again: its process or its node was lost", number)
                self._told[number] = count
        return sum(frames.get(chunk.number, 0) for chunk in chunks)


class Progress:
    """An actor that counts the frames of each chunk, and how often it was begun."""

    def __init__(self) -> None:
        self._frames: dict[int, int] = {}
        self._begins: Counter[int] = Counter()

    def begin(self, number: int) -> None:
        self._begins[number] += 1
        self._frames[number] = 0

    def set(self, number: int, frames: int) -> None:
        self._frames[number] = frames

    def counts(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return frames and begins by the number of the chunk."""
        return self._frames, dict(self._begins)


class _Tasks:
    """The tasks of a plan. Each gets what it needs of others as their results, which may not be there yet."""

    def __init__(self, ray: Any, options: Mapping[str, Any], folder: WorkFolder, cluster_job: Any, progress: Any
                 ) -> None:
        self._ray, self._folder, self._cluster_job, self._progress = ray, folder, cluster_job, progress
        self._task = ray.remote(**options)(ray_task.render_chunk)
        self._refs: dict[int, Any] = {}
        """By the number of the chunk: its state, the residuals of its warm-up, all else."""

    def submit(self, chunk: Chunk) -> Any:
        """Return the reference to what becomes of a chunk."""
        if chunk.number not in self._refs:
            self._refs[chunk.number] = self._task.remote(self._cluster_job, chunk.number, self._state_before(chunk),
                                                         self._residuals(chunk), self._progress)
        return self._refs[chunk.number][2]

    def _state_before(self, chunk: Chunk) -> Any:
        return None if chunk.begins_anew else self._output_of(chunk.number - 1, 0, chunk.state_before)

    def _residuals(self, chunk: Chunk) -> Any:
        return self._output_of(chunk.number + 1, 1, chunk.blend) if chunk.blend else None

    def _output_of(self, number: int, part: int, name: str) -> Any:
        plan = self._folder.plan
        assert plan is not None
        if plan.chunks[number].done:
            return self._ray.put((self._folder.path / name).read_bytes())
        self.submit(plan.chunks[number])
        return self._refs[number][part]

    def fetch(self, chunk: Chunk) -> tuple[Chunk, list[str]]:
        """Write the files of a whole chunk into the folder. Raises what its task has raised, and SinkError."""
        state, residuals, result = self._ray.get(list(self._refs.pop(chunk.number)))
        files = {**result["files"], chunk.state_file: state}
        if residuals is not None:
            files[warm_up_file(chunk.number)] = residuals
        for name, data in files.items():
            self._folder.write(name, data)
        done = Chunk(**result["chunk"])
        if self._folder.measure(done) != (done.bytes, done.sha256):
            raise StreamdreamError(f"{done.name} came damaged from the cluster; the same command renders it again")
        return done, list(result["warnings"])
