"""Videos of visitors that a Ray cluster renders: the server has its device for others, and they can be cancelled."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.jobs import tasks
from streamdream_web.jobs.job import Job, Work
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import JobRequest
from streamdream_web.jobs.uploads import Uploads
from support.waiting import until
from support.web_jobs import STREAM, submit, times_and_sound, wait_for

from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings

pytestmark = [pytest.mark.alone, pytest.mark.soak]
CHEAP = DreamSettings(layers="mixed0", warmup_steps=0, octaves=1)
STORE_BYTES = 100_000_000


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


def render(request: JobRequest) -> Work:
    def work(job: Job) -> None:
        tasks.render_video(job, STREAM, partial(pytest.fail, "a dreamer was made here"), pytest.fail, cluster="auto")

    return work


@pytest.fixture()
def jobs(tmp_path: Path) -> Iterator[JobQueue]:
    queue = JobQueue("tests", tmp_path / "jobs", work_of=render, workers=2, keeps=True)
    yield queue
    queue.close()


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


def test_a_cluster_that_is_not_there_is_said_without_paths(jobs: JobQueue, world: Path, uploads: Uploads,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "")
    job = wait_for(submit(jobs, uploads.take(world.read_bytes(), "holiday.mp4"), CHEAP))
    assert job.state == "failed" and "cluster" in job.error and str(job.folder) not in job.error, job.error
