"""Render the missing chunks of a plan on a Ray cluster: each is a task, which gets the state that the one before it
leaves. Ray places the tasks, and runs those of lost nodes and killed workers again.

    driver ──plan; blocks that are read──▶ object store ──▶ task of a chunk ──state──▶ task of the next one
       ▲                                                       │
       └───────────────── files of whole chunks ◀──────────────┘
"""
from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.errors import StreamdreamError, UsageError
from streamdream.render import block_file, ray_task
from streamdream.render.identity import describe_source
from streamdream.render.job import RenderJob
from streamdream.render.plan import Chunk, warm_up_file
from streamdream.render.ray_connection import connect, describe_resources, failures_of, one_line
from streamdream.render.ray_exchange import Exchange
from streamdream.render.ray_task import ClusterJob, HandedFile, NodeRefused
from streamdream.render.work_folder import PLAN_FILE, TIMES_FILE, WorkFolder

if TYPE_CHECKING:
    from streamdream.render.plan import RenderPlan

MAX_RETRIES = 20
"""How often Ray runs a task again whose node or process is lost. A chunk that ends its process each time fails then."""
POLL_SECONDS = 0.5
CHECK_SECONDS = 60.0
"""In which a node must say what it has; the first time, it starts a process and loads streamdream."""
NODES_SECONDS = 10.0
"""How often to look whether there still is a node for a chunk."""
NODE_LABEL = "ray.io/node-id"
log = logging.getLogger(__name__)


class RayExecutor:
    """A cluster. ``resources`` of each chunk are by default a GPU where the cluster has one, else as many cores as
    ``threads``, or as its largest node has. Raises UsageError when no node has as much, and as ``connect``.
    """

    def __init__(self, address: str, resources: Mapping[str, float], threads: int) -> None:
        self._ray = connect(address)
        with failures_of(self._ray):
            nodes = self._alive()
        self.resources = {"CPU": 1.0, **(resources or _default_resources(list(nodes.values()), threads))}
        self._threads = max(1, int(resources.get("CPU", threads)))
        self.parallel = sum(self._room(amounts) for amounts in nodes.values())
        if not self.parallel:
            raise UsageError(f"--chunk-resources {describe_resources(self.resources)}: no node of the cluster has that "
                             f"much; nodes have {_describe_nodes(list(nodes.values()))}")
        self._refused: set[str] = set()
        """Nodes that would give other frames."""
        self._told: Counter[int] = Counter()
        """How often the user knows that a chunk was begun."""
        self._next_look, self._was_usable = 0.0, True

    def threads(self, usable: int) -> int:
        return self._threads

    def render(self, folder: WorkFolder, on_frame: Callable[[int], None]) -> Generator[tuple[Chunk, list[str]]]:
        """As of ``Executor``."""
        ray, plan = self._ray, folder.plan
        assert plan is not None
        with failures_of(ray):
            exchange = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Exchange).remote()
            cluster_job = ray.put(_cluster_job(folder, plan, exchange))
            # Ray sets it to 1, or to the cores of the task: with another number the frames differ
            environment = {"env_vars": {"OMP_NUM_THREADS": str(plan.identity["threads"])}}
            self._check_nodes(cluster_job, environment, lambda: on_frame(plan.frames_done))
            tasks = _Tasks(ray, lambda: self._options(environment), folder, cluster_job)
            longest_first = sorted(plan.missing_ranges(), key=plan.count_frames, reverse=True)
            waiting = {tasks.submit(chunk): chunk for chunks in longest_first for chunk in chunks}
            try:
                yield from self._collect(waiting, tasks, exchange, folder, on_frame)
            finally:
                if ray.is_initialized():
                    self._stop(waiting, exchange)

    def _collect(self, waiting: dict[Any, Chunk], tasks: _Tasks, exchange: Any, folder: WorkFolder,
                 on_frame: Callable[[int], None]) -> Generator[tuple[Chunk, list[str]]]:
        """Yield what comes of the tasks in ``waiting``, from which it is removed; hand over the blocks they read."""
        wanted = exchange.wanted.remote()
        while waiting:
            assert folder.plan is not None
            self._watch_nodes()
            on_frame(folder.plan.frames_done + self._watch(exchange, folder.output, waiting.values()))
            for ref in self._ray.wait([wanted, *waiting], num_returns=1, timeout=POLL_SECONDS)[0]:
                if ref == wanted:
                    for path, number in self._ray.get(wanted):
                        block = self._ray.put(block_file.read_block(path, number))
                        exchange.hand.remote((path, number), [block])
                    wanted = exchange.wanted.remote()
                    continue
                chunk = waiting.pop(ref)
                try:
                    whole = tasks.fetch(chunk)
                except self._ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, NodeRefused):
                        raise
                    self._refuse(error.cause.node, error.cause.reason)  # it came to the cluster after the others
                    waiting[tasks.submit(chunk)] = chunk
                else:
                    yield whole

    def _stop(self, tasks: Iterable[Any], exchange: Any) -> None:
        """End what still runs. What the exchange is asked must be answered: else Ray complains on stderr."""
        with suppress(Exception):
            for ref in tasks:
                self._ray.cancel(ref, force=True)
            self._ray.get(exchange.stop.remote(), timeout=POLL_SECONDS)

    def _options(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the task of a chunk."""
        excluded = {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(self._refused))})"}} if self._refused else {}
        return {"runtime_env": environment, "num_cpus": self.resources["CPU"],
                "num_gpus": self.resources.get("GPU", 0), "num_returns": 3, "max_retries": MAX_RETRIES, **excluded,
                "resources": {name: amount for name, amount in self.resources.items() if name not in ("CPU", "GPU")}}

    def _check_nodes(self, cluster_job: Any, environment: Mapping[str, Any], on_wait: Callable[[], None]) -> None:
        """Refuse the nodes that would give other frames, or do not answer. Raises UsageError when no other is left."""
        options = {"num_cpus": 0, "runtime_env": environment}  # that of the chunks, which take over the process
        checks = {self._ray.remote(label_selector={NODE_LABEL: node}, **options)(ray_task.check_node)
                  .remote(cluster_job): node for node, amounts in self._alive().items() if self._room(amounts)}
        end = time.monotonic() + CHECK_SECONDS
        while checks and time.monotonic() < end:
            on_wait()
            for ref in self._ray.wait(list(checks), num_returns=1, timeout=POLL_SECONDS)[0]:
                node = checks.pop(ref)
                try:
                    self._ray.get(ref)
                except self._ray.exceptions.RayError as error:  # NodeRefused, or streamdream is not installed there
                    self._refuse(node, one_line(getattr(error, "cause", None) or error))
        for node in checks.values():
            self._refuse(node, f"it does not answer within {CHECK_SECONDS:.0f} s")

    def _refuse(self, node: str, reason: str) -> None:
        """Raises UsageError when no other is left."""
        if node not in self._refused:
            log.warning("node %s is not used: %s", node[:8], reason)
        self._refused.add(node)
        if not self._is_usable():
            raise UsageError(f"no node of the cluster can render this: {reason}")

    def _is_usable(self) -> bool:
        return any(self._room(amounts) for node, amounts in self._alive().items() if node not in self._refused)

    def _alive(self) -> dict[str, dict[str, float]]:
        """What each node has."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _room(self, amounts: Mapping[str, float]) -> int:
        """Return how many chunks a node of these resources renders at once."""
        return int(min(amounts.get(name, 0) // amount for name, amount in self.resources.items()))

    def _watch(self, exchange: Any, output: str, chunks: Iterable[Chunk]) -> int:
        """Tell of what is rendered again; return the number of frames of these chunks that are done."""
        try:
            frames, begins = self._ray.get(exchange.counts.remote(), timeout=POLL_SECONDS)
        except self._ray.exceptions.RayError:  # its node is busy, or lost
            return 0
        for number, count in begins.items():
            if count > max(1, self._told[number]):
                log.warning("chunk %d of %s is rendered again: its process or its node was lost", number, output)
                self._told[number] = count
        return sum(frames.get(chunk.number, 0) for chunk in chunks)

    def _watch_nodes(self) -> None:
        """Tell when no node is left: chunks wait until one comes."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + NODES_SECONDS
        is_usable = self._is_usable()
        if self._was_usable and not is_usable:
            log.warning("the cluster has no node for a chunk any more; waiting for one")
        self._was_usable = is_usable


class _Tasks:
    """The tasks of a plan. Each gets what it needs of others as their results, which may not be there yet."""

    def __init__(self, ray: Any, options: Callable[[], dict[str, Any]], folder: WorkFolder, cluster_job: Any) -> None:
        self._ray, self._options, self._folder, self._cluster_job = ray, options, folder, cluster_job
        self._task = ray.remote(ray_task.render_chunk)
        self._refs: dict[int, Any] = {}
        """By the number of the chunk: its state, the residuals of its warm-up, all else."""

    def submit(self, chunk: Chunk) -> Any:
        """Return the reference to what becomes of a chunk."""
        if chunk.number not in self._refs:
            self._refs[chunk.number] = self._task.options(**self._options()).remote(
                self._cluster_job, chunk.number, self._state_before(chunk), self._residuals(chunk))
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
        """Write the files of a whole chunk into the folder. Raises what its task has raised, which can then be
        submitted again, and SinkError.
        """
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


def _cluster_job(folder: WorkFolder, plan: RenderPlan, exchange: Any) -> ClusterJob:
    job = RenderJob.from_json(plan.job)
    dream = job.run.dream
    names = {job.input, dream.guide, dream.style, dream.mask, job.settings_track, job.run.automation.sound}
    files = {name: HandedFile(describe_source(name), Path(name).stat().st_size)
             for name in names if name and Path(name).is_file()}
    return ClusterJob((folder.path / PLAN_FILE).read_text(encoding="utf-8"), (folder.path / TIMES_FILE).read_bytes(),
                      files, exchange)


def _default_resources(nodes: Sequence[Mapping[str, float]], threads: int) -> dict[str, float]:
    if any(amounts.get("GPU") for amounts in nodes):
        return {"GPU": 1.0}
    return {"CPU": max(1.0, min(float(threads), max(amounts.get("CPU", 0) for amounts in nodes)))}


def _describe_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    found = {f"cpu={amounts.get('CPU', 0):g},gpu={amounts.get('GPU', 0):g}" for amounts in nodes}
    return " or ".join(sorted(found))
