"""Several servers share a folder of jobs: each sees those of the others, and takes over what one leaves."""
from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.core.kept_folder import join_folder
from streamdream_web.core.replica import NOBODY
from streamdream_web.jobs import job_store, queue
from streamdream_web.jobs.job import Job, Postponed
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import JobRequest
from streamdream_web.jobs.uploads import Upload, Uploads
from support.waiting import until
from support.web_jobs import BlockedWork, submit, wait_for, work_of

from streamdream.backends import Backend
from streamdream.errors import UsageError
from streamdream.media import images
from streamdream.settings import DreamSettings

CHEAP = DreamSettings(layers="mixed0", warmup_steps=0, octaves=1)
HOUR = 3600
WorkOf = Callable[[JobRequest], Callable[[Job], None]]


class Server:
    """The jobs of one server that shares ``folder``."""

    def __init__(self, folder: Path, work_of: WorkOf) -> None:
        self.replica = join_folder(folder)
        self.jobs = JobQueue("tests", folder / "jobs", work_of=work_of, keeps=True, keep_seconds=HOUR,
                             replica=self.replica, private_folder=folder.parent / self.replica.name)

    def find(self, job: Job) -> Job:
        found = self.jobs.get(job.token)
        assert found is not None
        return found

    def seen(self, job: Job, state: str) -> Job:
        """Wait until the server knows that the job is in that state."""
        def is_seen() -> bool:
            self.jobs.synchronize()
            return bool(self.find(job).state == state)

        until(is_seen)
        return self.find(job)

    def die(self) -> None:
        """What others see of a server that is killed."""
        self.replica._lock.release()


@pytest.fixture()
def begin(tmp_path: Path) -> Iterator[Callable[[WorkOf], Server]]:
    """Begin servers that share a folder."""
    with ExitStack() as stack:
        def start(work_of: WorkOf) -> Server:
            server = Server(tmp_path / "shared", work_of)
            stack.callback(server.jobs.close)
            return server

        yield start


@pytest.fixture()
def picture(uploads: Uploads, lion: Any) -> Upload:
    return uploads.take(images.encode_image(lion, ".png", "x"), "lion.png")


def progressing(work: BlockedWork, then: WorkOf, request: JobRequest) -> Callable[[Job], None]:
    """Work that shows progress, waits for the test, and then does what is asked."""
    def run(job: Job) -> None:
        job.progress(3, 10)
        work(job)
        then(request)(job)

    return run


def test_a_job_of_one_server_is_seen_in_the_others_as_it_goes_on(begin: Any, picture: Upload, eager: Backend) -> None:
    work = BlockedWork()
    first, second = begin(partial(progressing, work, work_of(eager))), begin(partial(same, BlockedWork()))
    job = submit(first.jobs, picture, CHEAP)
    until(lambda: job.done == 3)
    for server in (first, second):
        server.jobs.synchronize()
    seen = second.find(job)
    assert (seen.state, seen.done, seen.total, seen.title) == ("running", 3, 10, "lion.png")
    assert not second.jobs.is_busy and not second.jobs.is_running and not second.jobs.lengths["running"]
    work.release.set()
    wait_for(job)
    seen = second.seen(job, "done")
    assert seen.result and seen.result.read_bytes().startswith(b"\x89PNG")
    second.jobs.discard(seen)
    first.jobs.synchronize()
    assert first.jobs.get(job.token) is None and not job.folder.exists()


def test_a_job_that_waits_is_begun_by_the_first_server_that_is_free(begin: Any, picture: Upload, eager: Backend
                                                                    ) -> None:
    work = BlockedWork()
    first = begin(partial(same, work))
    jobs = [submit(first.jobs, picture, CHEAP, visitor=f"visitor {number}") for number in range(4)]
    until(lambda: work.started)
    assert [first.jobs.position(job) for job in jobs] == [0, 1, 2, 3] and first.jobs.lengths["waiting"] == 3
    second = begin(partial(same, work))
    until(lambda: len(work.started) == 2)
    third = begin(work_of(eager))
    for job in jobs[2:]:
        assert third.seen(job, "done").owner == third.replica.name
    first.jobs.synchronize()
    assert first.find(jobs[1]).owner == second.replica.name and len(work.started) == 2


def same(work: BlockedWork, request: JobRequest) -> BlockedWork:
    return work


def has_begun(work: BlockedWork) -> bool:
    return bool(work.started)


def test_a_job_of_a_server_that_died_goes_on_in_one_other(begin: Any, picture: Upload, eager: Backend) -> None:
    work = BlockedWork()
    first, second, third = begin(partial(same, work)), begin(work_of(eager)), begin(work_of(eager))
    job = submit(first.jobs, picture, CHEAP)
    until(lambda: work.started)
    for server in (second, third):
        server.jobs.synchronize()
    assert not second.jobs.is_busy and not third.jobs.is_busy, "its server lives"
    first.die()
    for server in (third, second):
        server.jobs.synchronize()
    assert third.seen(job, "done").attempts == second.seen(job, "done").attempts == 2
    owner = third.find(job).owner
    assert owner in (second.replica.name, third.replica.name) and len(work.started) == 1
    work.release.set()  # the first one was only paused: it keeps its hands off
    until(lambda: not first.jobs.lengths["running"])  # which waits until its record is written
    assert json.loads((job.folder / job_store.RECORD).read_text())["owner"] == owner
    first.jobs.synchronize()
    assert first.seen(job, "done").result.is_file()
    third.replica.remove_abandoned({job.owner for job in third.jobs.jobs()})
    assert {path.stem for path in (job.folder.parents[1] / "replicas").iterdir()} == {
        second.replica.name, third.replica.name, NOBODY}


def test_a_job_that_ends_each_of_its_servers_is_given_up(begin: Any, picture: Upload, eager: Backend) -> None:
    for attempt in range(queue.MAX_ATTEMPTS):
        work = BlockedWork()
        server = begin(partial(same, work))
        if not attempt:
            job = submit(server.jobs, picture, CHEAP)
        until(partial(has_begun, work))
        server.die()
    last = begin(work_of(eager))
    last.seen(job, "failed")
    assert "the server stopped 3 times" in last.find(job).error


def test_a_server_that_drains_gives_waiting_jobs_to_others_and_ends_its_own(begin: Any, picture: Upload,
                                                                            eager: Backend) -> None:
    work = BlockedWork()
    first = begin(partial(same, work))
    job, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    until(lambda: work.started)
    first.jobs.drain()
    late = submit(first.jobs, picture, CHEAP, visitor="her")
    second = begin(work_of(eager))
    for taken in (waiting, late):
        second.seen(taken, "done")
    assert first.jobs.is_running
    work.release.set()
    wait_for(job)
    assert work.started == ["lion.png"] and not first.jobs.is_running
    first.seen(waiting, "done")


def test_a_server_that_is_stopped_leaves_its_jobs_to_others_at_once(begin: Any, picture: Upload,
                                                                    eager: Backend) -> None:
    work = BlockedWork()
    first = begin(partial(same, work))
    job, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    until(lambda: work.started)
    first.jobs.close()
    assert {json.loads((each.folder / job_store.RECORD).read_text())["owner"] for each in (job, waiting)} == {NOBODY}
    assert not first.replica.outlives_close
    second = begin(work_of(eager))
    for each in (job, waiting):
        second.seen(each, "done")
    assert second.find(job).attempts == 1


def test_a_server_with_a_thread_that_does_not_end_lives_until_its_process_ends(begin: Any, picture: Upload) -> None:
    going = threading.Event()
    server = begin(lambda request: lambda job: going.wait(60))
    job = submit(server.jobs, picture, CHEAP)
    wait_for(job, "running")
    server.jobs.close(0.1)
    server.replica.close()
    other = begin(partial(same, BlockedWork()))
    assert other.find(job).state == "running" and not other.jobs.is_busy
    going.set()


@pytest.mark.parametrize("end", ["runs", "dies", "is done"])
def test_a_visitor_cancels_a_job_of_another_server(begin: Any, picture: Upload, eager: Backend, end: str) -> None:
    work = BlockedWork()
    first, second = begin(partial(progressing, work, work_of(eager))), begin(partial(same, BlockedWork()))
    job = submit(first.jobs, picture, CHEAP)
    until(lambda: work.started)
    second.jobs.synchronize()
    second.jobs.discard(second.find(job))
    assert second.find(job).stop.is_set()
    if end == "dies":
        first.die()
    elif end == "is done":
        work.release.set()
        wait_for(job)
        until(lambda: not first.jobs.lengths["running"])  # which waits until its record is written
    else:
        first.jobs.synchronize()
        until(lambda: first.jobs.get(job.token) is None)
    for _ in range(2):
        second.jobs.synchronize()
    assert second.jobs.get(job.token) is None and not job.folder.exists()
    assert begin(work_of(eager)).jobs.get(job.token) is None


def test_a_cancelled_job_is_not_written_again_as_a_running_one(begin: Any, picture: Upload) -> None:
    going = threading.Event()
    server = begin(lambda request: lambda job: (job.progress(1, 2), going.wait(60)))
    job = submit(server.jobs, picture, CHEAP)
    until(lambda: job.done == 1)
    server.jobs.cancel(job)
    server.jobs.synchronize()
    assert not (job.folder / job_store.RECORD).exists()
    going.set()


def test_a_record_that_could_not_be_read_or_written_once_is_so_again(begin: Any, picture: Upload, eager: Backend,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    work, fails, save, read = BlockedWork(), threading.Event(), job_store.save, job_store.read
    first, second = begin(partial(progressing, work, work_of(eager))), begin(partial(same, BlockedWork()))
    job = submit(first.jobs, picture, CHEAP)
    until(lambda: work.started)
    second.jobs.synchronize()
    monkeypatch.setattr(job_store, "save", lambda job: False if fails.is_set() else save(job))
    fails.set()
    work.release.set()
    wait_for(job)
    until(lambda: not first.jobs.lengths["running"])  # which waits until its record is written
    fails.clear()
    first.jobs.synchronize()

    def broken(*arguments: Any) -> Job:
        if fails.is_set():
            raise OSError("stale file handle")
        return read(*arguments)

    monkeypatch.setattr(job_store, "read", broken)
    fails.set()
    second.jobs.synchronize()
    assert second.find(job).state == "running"
    fails.clear()
    assert second.seen(job, "done")
    fails.set()
    monkeypatch.setattr(job_store, "save", lambda job: False)
    with pytest.raises(UsageError, match="cannot store"):
        submit(first.jobs, picture, CHEAP)
    assert {path.name for path in job.folder.parent.iterdir()} == {job.token}


def test_what_another_server_is_making_is_not_removed(begin: Any, tmp_path: Path, eager: Backend,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    server = begin(work_of(eager))
    young, old, file = (tmp_path / "shared" / "jobs" / name for name in ("young", "old", ".nfs0001"))
    for folder in (young, old):
        folder.mkdir()
    file.touch()
    for path in (old, file):
        os.utime(path, (time.time() - 2 * HOUR,) * 2)
    for _ in range(3):
        server.jobs.synchronize()
    server.jobs.sweep()
    begin(work_of(eager)).jobs.sweep()
    assert young.exists() and not old.exists() and not file.exists() and not caplog.records


def test_a_job_whose_machines_are_not_there_waits_and_ends_in_words(begin: Any, picture: Upload,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "POSTPONE_SECONDS", 0.0)
    tries = []

    def work(job: Job) -> None:
        tries.append(job.attempts)
        if len(tries) == 6:
            monkeypatch.setattr(queue, "MAX_POSTPONED_SECONDS", 0.0)
        raise Postponed("the machines cannot be reached")

    server = begin(lambda request: work)
    assert wait_for(submit(server.jobs, picture, CHEAP), "failed").error == "the machines cannot be reached"
    assert tries == [1] * 6
