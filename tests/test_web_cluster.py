"""Videos of visitors that a Ray cluster renders: the server has its device for others, and they can be cancelled."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.jobs import queue, tasks
from streamdream_web.jobs.job import Work
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import JobRequest
from streamdream_web.jobs.uploads import Uploads
from support.broadcast import free_port
from support.waiting import until
from support.web_jobs import STREAM, submit, times_and_sound, wait_for

from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings

pytestmark = [pytest.mark.alone, pytest.mark.soak]
CHEAP = DreamSettings(layers="mixed0", warmup_steps=0, octaves=1)
STORE_BYTES = 100_000_000
RAY = [str(Path(sys.executable).with_name("ray"))]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="no Ray here")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False,
                                                          "object_store_memory": STORE_BYTES})
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]


def render_on(cluster: str) -> Callable[[JobRequest], Work]:
    def work_of(request: JobRequest) -> Work:
        return lambda job: tasks.render_video(job, STREAM, partial(pytest.fail, "a dreamer was made here"), pytest.fail,
                                              cluster=cluster)

    return work_of


@pytest.fixture()
def jobs(tmp_path: Path) -> Iterator[JobQueue]:
    opened = JobQueue("tests", tmp_path / "jobs", work_of=render_on("auto"), workers=2, keeps=True)
    yield opened
    opened.close()


def test_two_videos_are_rendered_at_once_without_the_device_of_the_server(cluster: Any, jobs: JobQueue, world: Path,
                                                                          uploads: Uploads) -> None:
    clip = uploads.take(world.read_bytes(), "holiday.mp4")
    both = [submit(jobs, clip, CHEAP, TimeRange.of(first, end=first + 1.0)) for first in (1.0, 3.0)]
    until(lambda: all(job.state == "running" for job in both))
    for job in both:
        wait_for(job)
        assert job.state == "done", job.error
        assert job.result and len(times_and_sound(job.result)[0]) == 30 == job.done
        assert not [path.name for path in job.folder.iterdir() if path.name.startswith(".")], "chunks are left"
        assert str(job.folder).encode() not in job.result.read_bytes()


def test_a_cancelled_video_ends_on_the_cluster(cluster: Any, jobs: JobQueue, world: Path, uploads: Uploads) -> None:
    import ray

    job = submit(jobs, uploads.take(world.read_bytes(), "holiday.mp4"), CHEAP)
    until(lambda: job.done > 3, 60)
    jobs.discard(job)
    wait_for(job, "cancelled")
    free: Any = ray.available_resources
    until(lambda: not job.folder.exists() and free().get("CPU") == 2.0, 60)


def test_a_cluster_that_is_not_there_is_waited_for_and_then_said(world: Path, tmp_path: Path, uploads: Uploads,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setattr(queue, "POSTPONE_SECONDS", 0.1)
    jobs = JobQueue("tests", tmp_path / "jobs", work_of=render_on(f"ray://127.0.0.1:{free_port()}"), keeps=True)
    job = submit(jobs, uploads.take(world.read_bytes(), "holiday.mp4"), CHEAP)
    until(lambda: job.postponed_since_seconds, 60)
    assert wait_for(job, "waiting", "running").attempts <= 1
    monkeypatch.setattr(queue, "MAX_POSTPONED_SECONDS", 0.0)
    assert wait_for(job, "failed").error == tasks.NO_CLUSTER
    jobs.close()


def test_a_video_goes_on_when_its_cluster_is_back(world: Path, tmp_path: Path, uploads: Uploads,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Ray's client, as from a server that is no part of the cluster."""
    import ray

    ray.shutdown()
    monkeypatch.setattr(queue, "POSTPONE_SECONDS", 0.5)
    port = free_port()

    def begin_cluster() -> None:
        subprocess.run([*RAY, "start", "--head", "--port", str(free_port()), "--num-cpus", "2", "--include-dashboard",
                        "false", "--ray-client-server-port", str(port), "--object-store-memory", str(STORE_BYTES)],
                       check=True, capture_output=True)

    def end_cluster() -> None:
        subprocess.run([*RAY, "stop", "--force"], check=True, capture_output=True)

    clip = uploads.take(world.read_bytes(), "holiday.mp4")
    begin_cluster()
    jobs = JobQueue("tests", tmp_path / "jobs", work_of=render_on(f"ray://127.0.0.1:{port}"), keeps=True)
    try:
        job = submit(jobs, clip, CHEAP, TimeRange.of(0.0, end=9.0))
        until(lambda: job.done > 5, 90, about=lambda: (job.state, job.error))
        end_cluster()
        until(lambda: job.postponed_since_seconds, 120, about=lambda: (job.state, job.error))
        begin_cluster()
        until(lambda: job.finished, 180, about=lambda: (job.state, job.done))
        assert job.state == "done" and job.result and len(times_and_sound(job.result)[0]) == 270, job.error
    finally:
        jobs.close()
        ray.shutdown()
        end_cluster()
