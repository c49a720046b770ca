"""Renders on a Ray cluster of several nodes on this machine: the frames of one process, whatever is lost on the way."""
from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import fails, here
from support.planned_renders import SMALL, Frames, Interruption, Watcher, frames_of, job, make_shots
from support.waiting import until

from streamdream.errors import MissingPackage, StreamdreamError, UsageError
from streamdream.render import block_file, ray_cluster, ray_connection
from streamdream.render.block_file import BlockFile
from streamdream.render.file_render import PlanOptions, render_file
from streamdream.render.ray_cluster import RayExecutor
from streamdream.render.ray_connection import parse_resources
from streamdream.render.ray_exchange import MAX_BLOCKS, Exchange
from streamdream.render.ray_task import HandedFile
from streamdream.render.work_folder import default_path, read_plan

SHOT_FRAMES = (20, 13, 9)
STORE_BYTES = 100_000_000
ON_CLUSTER = PlanOptions(cluster="auto")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shots(tmp_path_factory.mktemp("cluster") / "film.mkv", SHOT_FRAMES)


@pytest.fixture(scope="module")
def by_one(film: Path) -> Frames:
    render_file(job(film, film.with_name("one.mkv"), codec="ffv1"), PlanOptions(), Watcher())
    return frames_of(film.with_name("one.mkv"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="no Ray here")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False,
                                                          "object_store_memory": STORE_BYTES})
    nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.alone
@pytest.mark.soak
def test_a_cluster_gives_the_frames_of_one_process(cluster: Any, film: Path, by_one: Any, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no node finds the input, which then comes through the object store."""
    monkeypatch.setattr(ray_cluster, "describe_source", lambda path: {"bytes": -1})
    watcher = Watcher()
    report = render_file(job(film, tmp_path / "ray.mkv", codec="ffv1"), ON_CLUSTER, watcher)
    assert frames_of(tmp_path / "ray.mkv") == by_one and report.frames == sum(SHOT_FRAMES)
    assert watcher.frames[-1] <= sum(SHOT_FRAMES) and watcher.frames == sorted(watcher.frames)
    assert not default_path(str(tmp_path / "ray.mkv"), "").exists()


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.parametrize("seams", ["exact", "warm-up"])
def test_an_interrupted_render_goes_on_with_the_cluster_or_without_it(
        cluster: Any, film: Path, by_one: Any, tmp_path: Path, seams: str) -> None:
    task, options = job(film, tmp_path / "out.mkv", codec="ffv1"), replace(ON_CLUSTER, seams=seams)
    with pytest.raises(Interruption):
        render_file(task, options, Watcher(stop_at=8))
    assert default_path(task.output, "").exists()
    watcher = Watcher()
    render_file(task, PlanOptions() if seams == "exact" else options, watcher)
    assert watcher.done_before >= 8
    frames = frames_of(tmp_path / "out.mkv")
    assert frames == by_one if seams == "exact" else len(frames) == len(by_one)


def killing(kill: Callable[[], object], every: float = 0.3, times: int = 1) -> threading.Thread:
    """A thread that kills something ``times`` times, as soon as there is something to kill."""
    def run() -> None:
        for _ in range(times):
            until(lambda: bool(kill()), 120)
            threading.Event().wait(every)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def kill_a_task() -> bool:
    """Kill a process of Ray that renders a chunk; return whether there was one."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::render_chunk"):
                threading.Event().wait(0.5)  # it has begun by then
                os.kill(int(folder.name), signal.SIGKILL)
                return True
    return False


@pytest.mark.alone
@pytest.mark.soak
def test_ten_killed_workers_change_nothing_and_are_told(cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
                                                        ) -> None:
    film = make_shots(tmp_path / "film.mkv", (90, 70, 50, 60))  # long enough for all ten
    render_file(job(film, tmp_path / "one.mkv", codec="ffv1"), PlanOptions(), Watcher())
    killer = killing(kill_a_task, times=10)
    render_file(job(film, tmp_path / "out.mkv", codec="ffv1"), ON_CLUSTER, Watcher())
    killer.join(1)
    assert not killer.is_alive() and "is rendered again: its process or its node was lost" in caplog.text
    assert frames_of(tmp_path / "out.mkv") == frames_of(tmp_path / "one.mkv")


@pytest.mark.alone
@pytest.mark.soak
def test_a_lost_node_changes_nothing(cluster: Any, film: Path, by_one: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    lost = threading.Event()

    class Losing(Watcher):
        def frame(self, done_frames: int) -> None:
            super().frame(done_frames)
            if done_frames >= 6 and not lost.is_set():
                lost.set()
                cluster.remove_node(node, allow_graceful=False)

    render_file(job(film, tmp_path / "out.mkv", codec="ffv1"), ON_CLUSTER, Losing())
    assert lost.is_set() and frames_of(tmp_path / "out.mkv") == by_one


def frames_done(folder: Path) -> int:
    plan = read_plan(folder)
    return plan.frames_done if plan else 0


@pytest.mark.alone
@pytest.mark.soak
def test_a_killed_driver_leaves_what_is_whole(cluster: Any, film: Path, by_one: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    flags = [word for name, value in {**SMALL, "codec": "ffv1"}.items()
             for word in (f"--{name.replace('_', '-')}" if name != "codec" else "-c:v", value)]
    command = [sys.executable, "-m", "streamdream", "render", str(film), "-o", str(output), "--cluster", "auto", *flags]
    process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": cluster.address}, stderr=subprocess.PIPE)
    folder = default_path(str(output), "")
    until(lambda: frames_done(folder) > 0 or process.poll() is not None, 120)
    process.kill()
    process.communicate()
    assert folder.exists() and not output.exists()
    watcher = Watcher()
    render_file(job(film, output, codec="ffv1"), ON_CLUSTER, watcher)
    assert watcher.done_before > 0 and frames_of(output) == by_one


def other_node(cluster: Any, folder: Path, num_cpus: int = 1) -> Any:
    """Add a node with another version of numpy, by what its packages say."""
    other = folder / "packages" / "numpy-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    path = f"{other.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return cluster.add_node(num_cpus=num_cpus, object_store_memory=STORE_BYTES, env_vars={"PYTHONPATH": path})


@pytest.mark.alone
@pytest.mark.soak
def test_a_node_with_another_version_is_refused(cluster: Any, film: Path, by_one: Any, tmp_path: Path,
                                                caplog: pytest.LogCaptureFixture) -> None:
    node = other_node(cluster, tmp_path)
    try:
        render_file(job(film, tmp_path / "out.mkv", codec="ffv1"), ON_CLUSTER, Watcher())
    finally:
        cluster.remove_node(node)
    assert "is not used: version of numpy was" in caplog.text and frames_of(tmp_path / "out.mkv") == by_one


@pytest.mark.alone
@pytest.mark.soak
def test_a_node_that_joins_later_with_another_version_is_left_out(
        cluster: Any, film: Path, by_one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    check, joined = RayExecutor._check_nodes, list[Any]()

    def check_and_join(*arguments: Any) -> None:
        check(*arguments)
        joined.append(other_node(cluster, tmp_path, num_cpus=4))

    monkeypatch.setattr(RayExecutor, "_check_nodes", check_and_join)
    try:
        render_file(job(film, tmp_path / "out.mkv", codec="ffv1"), ON_CLUSTER, Watcher())
    finally:
        cluster.remove_node(joined[0])
    assert "is not used: version of numpy was" in caplog.text and frames_of(tmp_path / "out.mkv") == by_one


@pytest.mark.alone
@pytest.mark.soak
def test_a_node_with_fewer_cores_computes_on_the_threads_of_the_plan(cluster: Any, film: Path, tmp_path: Path) -> None:
    settings = {"codec": "ffv1", "layers": "mixed3", "octaves": "2", "steps": "2", "field_height": "96"}
    for threads in (1, 2):
        render_file(job(film, tmp_path / f"{threads}.mkv", threads=str(threads), **settings), PlanOptions(), Watcher())
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    node = cluster.add_node(num_cpus=1, resources={"small": 1}, object_store_memory=STORE_BYTES)
    os.sched_setaffinity(0, cores)
    try:
        render_file(job(film, tmp_path / "ray.mkv", threads="2", **settings),
                    replace(ON_CLUSTER, chunk_resources="small=1"), Watcher())
    finally:
        cluster.remove_node(node)
    assert frames_of(tmp_path / "ray.mkv") == frames_of(tmp_path / "2.mkv") != frames_of(tmp_path / "1.mkv")


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.parametrize("resources", ["gpu=1", "cpu=2", "cpu=1,tpu=1"])
def test_what_no_node_has_is_said_at_once(cluster: Any, film: Path, tmp_path: Path, resources: str) -> None:
    """Also where all nodes together have it."""
    with pytest.raises(UsageError, match="no node of the cluster has that much; nodes have cpu=1,gpu=0"):
        render_file(job(film, tmp_path / "out.mkv"), replace(ON_CLUSTER, chunk_resources=resources), Watcher())


@pytest.mark.alone
@pytest.mark.soak
def test_an_error_of_a_node_is_one_line_that_names_it(cluster: Any, film: Path, tmp_path: Path) -> None:
    class Damaging(Watcher):
        def began(self, *arguments: Any) -> None:
            super().began(*arguments)
            broken.write_bytes(b"Dear diary, this is no video.\n" * 40)

    broken = tmp_path / "film.mkv"
    shutil.copy(film, broken)
    with pytest.raises(StreamdreamError) as caught:
        render_file(job(broken, tmp_path / "out.mkv", codec="ffv1"), ON_CLUSTER, Damaging())
    assert str(caught.value) == (f"{broken} is damaged, or not a video (invalid data found when processing input) "
                                 f"(on node {platform.node()})")


# --- without a cluster


def test_a_block_is_asked_for_once_and_the_last_ones_are_kept() -> None:
    async def run() -> None:
        exchange = Exchange()
        waiting = [asyncio.create_task(exchange.block(("film", 0))) for _ in range(3)]
        assert await exchange.wanted() == [("film", 0)]
        waiting.pop().cancel()  # its task is lost
        await exchange.hand(("film", 0), ["first"])
        assert [await each for each in waiting] == [["first"], ["first"]]
        for number in range(1, MAX_BLOCKS + 1):
            asked = asyncio.create_task(exchange.block(("film", number)))
            assert await exchange.wanted() == [("film", number)]
            await exchange.hand(("film", number), [number])
            assert await asked == [number]
        assert await exchange.block(("film", 1)) == [1]
        again = asyncio.create_task(exchange.block(("film", 0)))
        assert await exchange.wanted() == [("film", 0)]
        again.cancel()

    asyncio.run(run())


def test_blocks_are_fetched_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_file, "BLOCK_BYTES", 1000)
    data = np.random.default_rng(0).bytes(4500)
    (tmp_path / "a").write_bytes(data)
    assert block_file.count_blocks(len(data)) == 5 and block_file.count_blocks(4000) == 4
    fetched: list[int] = []

    def fetch(number: int) -> bytes:
        fetched.append(number)
        return block_file.read_block(str(tmp_path / "a"), number)

    file = BlockFile(fetch, len(data))
    file.seek(2900)
    assert file.read(200) == data[2900:3000] and file.read(10) == data[3000:3010] and fetched == [2, 3]
    file.seek(-10, os.SEEK_END)
    assert file.read() == data[-10:] and file.read() == b"" and fetched == [2, 3, 4]
    file.seek(0)
    assert b"".join(iter(lambda: file.read(700), b"")) == data


@pytest.mark.parametrize("text, found", [
    ("", {}), ("cpu=4", {"CPU": 4.0}), ("cpu=2,gpu=0.5,tpu-x=1", {"CPU": 2.0, "GPU": 0.5, "tpu-x": 1.0})])
def test_resources_of_a_chunk(text: str, found: dict[str, float]) -> None:
    assert parse_resources(text) == found


@pytest.mark.parametrize("text", ["4", "cpu", "cpu=", "cpu=x", "cpu=0", "cpu=1,", "cpu=1;gpu=1", "=1", "cpu=-1"])
def test_wrong_resources_of_a_chunk_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--chunk-resources"):
        parse_resources(text)


@pytest.mark.parametrize("address, problem", [
    ("nope", "it is auto, or an address"), ("ray://", "it is auto, or an address"),
    ("ray://head", "it is auto, or an address"), ("ray://127.0.0.1:1", "nobody answers there"),
    ("ray://127.0.0.1:99999", "nobody answers there")])
def test_an_address_without_a_cluster_is_said_before_anything_is_read(address: str, problem: str,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "render", "lost.mp4", "-o", "a.mp4", "--cluster", address), 2, problem)


def test_without_ray_the_command_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'streamdream\[ray\]'"):
        ray_connection.connect("auto")


def test_a_handed_file_is_recognized_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"film")
    from streamdream.render.identity import describe_source

    handed = HandedFile(describe_source(str(path)), 4)
    assert handed.is_here(str(path)) and not handed.is_here(str(tmp_path / "b"))
    path.write_bytes(b"other")
    assert not handed.is_here(str(path))
