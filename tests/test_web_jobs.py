"""Queues of jobs: their order, their ends, their files; and what they do, with a real network."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file
from streamdream_web.core.scheduler import CpuYield, FairScheduler
from streamdream_web.jobs import previews, tasks
from streamdream_web.jobs.device_slots import StepwiseDeviceSlot
from streamdream_web.jobs.job import Job
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.thumbnails import SIDE, Thumbnails
from streamdream_web.jobs.upload import Upload
from streamdream_web.jobs.uploads import Uploads
from support.waiting import until
from support.web_jobs import (
    TIMEOUT_SECONDS,
    BlockedWork,
    ManualClock,
    submit,
    times_and_sound,
    wait_for,
    work_of,
)

from streamdream import models
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import SourceError, UsageError
from streamdream.media import images
from streamdream.media.input_container import TimeRange
from streamdream.media.opencv import cv2
from streamdream.models import fetch
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings, StreamSettings

CHEAP = DreamSettings(layers="mixed0", warmup_steps=1, octaves=1)


@pytest.fixture()
def queue(tmp_path: Path, eager: Backend) -> Iterator[JobQueue]:
    opened = JobQueue("tests", tmp_path / "jobs", max_jobs=4, max_per_visitor=2, work_of=work_of(eager))
    yield opened
    opened.close()
    assert not (tmp_path / "jobs").exists()


def test_the_queue_alternates_between_visitors(queue: JobQueue) -> None:
    work = BlockedWork()
    first = [queue.submit("first", f"first {number}", work) for number in (1, 2)]
    second = queue.submit("second", "second", work)
    wait_for(first[0], "running")
    assert [queue.position(job) for job in (*first, second)] == [0, 2, 1]
    work.release.set()
    for job in (*first, second):
        assert wait_for(job).state == "done"
    assert work.started == ["first 1", "second", "first 2"]


def test_a_full_queue_refuses_jobs(queue: JobQueue) -> None:
    work = BlockedWork()
    for number in range(2):
        queue.submit("one", str(number), work)
    with pytest.raises(UsageError, match="you have 2 waiting or running"):
        queue.submit("one", "third", work)
    for number in range(2):
        queue.submit("two", str(number), work)
    with pytest.raises(UsageError, match="the queue is full"):
        queue.submit("three", "first", work)


def test_waiting_and_running_jobs_can_be_cancelled(queue: JobQueue) -> None:
    work, written = BlockedWork(), threading.Event()

    def write(job: Job) -> None:
        (job.folder / "half.mp4").write_bytes(b"half")
        job.result = job.folder / "half.mp4"
        written.set()
        work(job)

    running, waiting = queue.submit("one", "a", write), queue.submit("two", "b", write)
    assert written.wait(TIMEOUT_SECONDS)
    queue.cancel(waiting)
    assert waiting.state == "cancelled"
    queue.cancel(running)
    assert wait_for(running).state == "cancelled" and running.result is None
    assert not list(queue.folder.rglob("*"))


def test_an_unexpected_error_is_shown_in_the_log_only(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    def fail(job: Job) -> None:
        raise SourceError("the video is damaged")

    def break_down(job: Job) -> None:
        raise KeyError("/etc/secret")

    failed, broken = queue.submit("one", "a", fail), queue.submit("one", "b", break_down)
    assert wait_for(failed).error == "the video is damaged"
    assert "secret" not in wait_for(broken).error and "log" in broken.error
    assert "/etc/secret" in caplog.text
    assert wait_for(queue.submit("one", "c", lambda job: None)).state == "done"


def test_results_expire(tmp_path: Path) -> None:
    clock = ManualClock()
    jobs = JobQueue("short", tmp_path / "short", keep_seconds=60, clock=clock)
    job = wait_for(jobs.submit("me", "a", lambda job: None))
    jobs.sweep()
    assert jobs.get(job.token) is job
    clock.seconds += 61
    jobs.sweep()
    assert jobs.get(job.token) is None and not list(jobs.folder.iterdir())
    jobs.close()


def test_a_long_job_ends_when_another_waits(tmp_path: Path) -> None:
    clock, work = ManualClock(), BlockedWork()
    jobs = JobQueue("long", tmp_path / "long", max_seconds=60, clock=clock)
    long = wait_for(jobs.submit("one", "long", work), "running")
    clock.seconds += 61
    long.check()  # nobody waits
    assert long.state == "running"
    jobs.submit("two", "next", lambda job: None)
    assert "others wait" in wait_for(long).error
    jobs.close()


def test_a_job_yields_the_device_after_every_step() -> None:
    """A live session gets the device between the steps of a picture, and not after all of them."""
    scheduler, stop, came = FairScheduler(), threading.Event(), []

    def live() -> None:
        while not stop.is_set():
            with scheduler.device_slot("live"):
                came.append(time.monotonic())

    visitor = threading.Thread(target=live)
    shared = StepwiseDeviceSlot(lambda: scheduler.device_slot("job"))
    with shared():
        visitor.start()
        for _ in range(10):
            time.sleep(0.01)
            shared.yield_device()
        during = len(came)
    stop.set()
    visitor.join()
    assert during >= 5


def test_a_dream_that_waited_for_the_cpu_yields_it() -> None:
    rests: list[float] = []

    @contextmanager
    def free() -> Iterator[None]:
        yield

    def dream(work: Callable[[], None], min_dream_rate: float = 1.0) -> float:
        with CpuYield(free, min_dream_rate, rests.append)():
            work()
        return rests[-1]

    def compute(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    assert 0.07 < dream(lambda: time.sleep(0.02)) < 0.98
    assert dream(lambda: time.sleep(0.02), min_dream_rate=1000) == 0  # a slow one is slow enough already
    above = [dream(lambda: time.sleep(0.02), min_dream_rate=40) for _ in range(20)]
    assert 0 < max(above) < 0.006  # only what is above is given away
    assert min(dream(lambda: compute(0.002)) for _ in range(30)) < 0.004
    with pytest.raises(UsageError), CpuYield(free, 5.0, rests.append)():
        raise UsageError("it is not swallowed")


# --- with a network


@pytest.fixture()
def clip(uploads: Uploads, world: Path) -> Upload:
    return uploads.take(world.read_bytes(), "world.mp4")


def small(eager: Backend, height: int = 96) -> tasks.MakeDreamer:
    return lambda: Dreamer(models.get("inception_v3"), eager, field_height=height)


def test_a_video_keeps_times_and_sound(queue: JobQueue, clip: Upload) -> None:
    seen = []
    job = submit(queue, clip, CHEAP, TimeRange.of(1.0, end=1.5))
    while not job.finished:
        if job.picture is not None:
            seen.append(previews.current(job))
        time.sleep(0.02)
    assert job.state == "done", job.error
    assert job.result and (job.done, job.total) == (15, 15)
    assert seen and previews.current(job)
    assert cv2().imdecode(np.frombuffer(seen[-1], np.uint8), 1).shape == (270, 480, 3)
    times, sound = times_and_sound(job.result)
    _, all_sound = times_and_sound(clip.path)
    assert times == pytest.approx([number / 30 for number in range(15)], abs=1e-3)
    assert len(sound) >= 20 and set(sound) <= set(all_sound)  # untouched, packet by packet
    assert not any(str(clip.path.parent) in warning for warning in job.warnings)


def test_a_cancelled_video_leaves_nothing(queue: JobQueue, clip: Upload) -> None:
    job = submit(queue, clip, CHEAP)
    while job.done < 3 and not job.finished:
        time.sleep(0.01)
    queue.cancel(job)
    assert wait_for(job).state == "cancelled" and not list(queue.folder.rglob("*"))


def test_a_preview_dreams_three_frames(queue: JobQueue, clip: Upload, eager: Backend) -> None:
    found: list[Any] = []

    def preview(job: Job) -> None:
        tasks.preview_video(job, clip, TimeRange.of(3.0, end=9.0), CHEAP, small(eager), nullcontext)
        found.extend(job.answer)

    wait_for(queue.submit("me", "clip", preview))
    assert [seconds for seconds, _, _ in found] == pytest.approx([4.0, 6.0, 8.0], abs=0.04)
    assert all(np.abs(dream.astype(int) - frame).mean() > 0.5 for _, frame, dream in found)


def test_a_picture_job_shows_each_octave_and_keeps_to_its_mask(
    queue: JobQueue, uploads: Uploads, lion: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PREVIEW_SECONDS", 0)
    mask = np.zeros((*lion.shape[:2], 3), np.uint8)
    mask[:, :128] = 255
    picture, drawn = (uploads.take(images.encode_image(image[..., ::-1], ".png", name), f"{name}.png")
                      for name, image in (("lion", lion), ("mask", mask)))
    settings = DreamSettings(layers="mixed0", warmup_steps=0, octaves=2, steps=3, step_size=0.05)
    sizes = []
    monkeypatch.setattr(Job, "show", lambda job, picture: sizes.append(picture.shape[:2]))
    job = wait_for(submit(queue, picture, settings, files={"mask": drawn}, height=0))
    assert job.result and job.state == "done", job.error
    dream = images.read_image(str(job.result))
    assert (job.done, job.total) == (6, 6) and len(set(sizes[:-1])) == 2 and sizes[-1] == (256, 256)
    assert np.array_equal(dream[:, 140:], lion[:, 140:])
    assert np.abs(dream[:, :120].astype(int) - lion[:, :120]).mean() > 2


def test_thumbnails_of_the_embedded_network_are_in_the_package(tmp_path: Path) -> None:
    thumbnails = Thumbnails(StreamSettings(), nullcontext, folder=tmp_path / "layers")
    for tap in models.get("inception_v3").taps():
        path = thumbnails.path("inception_v3", tap)
        assert path and images.read_image(str(path)).shape == (SIDE, SIDE, 3), tap
    assert thumbnails.path("inception_v3", "nonsense") is None and not thumbnails.pending("inception_v3")
    assert not (tmp_path / "layers").exists()


def test_thumbnails_are_made_for_blocks_first_and_slower_while_others_dream(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    model = models.get("bvlc_googlenet")
    fetch.weights_dir().mkdir(parents=True)
    save_file(random_weights(model.nodes()), fetch.weights_dir() / "bvlc_googlenet.safetensors")
    busy = threading.Event()
    steps = []
    scheduler = FairScheduler()

    def device_slot() -> Any:
        steps.append(time.monotonic())
        return scheduler.device_slot("thumbnails")

    stream = StreamSettings(device="cpu", precision="fp32")
    thumbnails = Thumbnails(stream, device_slot, busy.is_set, tmp_path / "layers")
    thumbnails.request(model.name)
    until(lambda: thumbnails.done(model.name) or thumbnails.problem, TIMEOUT_SECONDS)
    assert thumbnails.done(model.name)[0] in model.blocks(pools=True)
    busy.set()
    time.sleep(0.2)
    before = len(steps)
    time.sleep(1.2)
    assert len(steps) - before <= 4
    assert thumbnails.path(model.name, thumbnails.done(model.name)[0])
    assert thumbnails.path(model.name, "nonsense") is None
    thumbnails.close()
    again = Thumbnails(StreamSettings(), nullcontext, folder=tmp_path / "layers")
    assert again.done(model.name) == thumbnails.done(model.name)


def test_a_missing_network_names_the_fetch_command(tmp_path: Path) -> None:
    from streamdream_web.pages.settings_panel import gallery, missing_html

    made = Thumbnails(StreamSettings(), nullcontext, folder=tmp_path / "layers")
    made.request("bvlc_googlenet")
    assert not made.pending("bvlc_googlenet") and gallery("bvlc_googlenet", whole=True) == ""
    assert "streamdream fetch bvlc_googlenet" in missing_html("bvlc_googlenet")
