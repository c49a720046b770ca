"""One address among many: its jobs, its turns, its files. Time is a number that the tests move on."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamdream_web.core.limits import EXPIRE_SECONDS, MAX_VISITORS
from streamdream_web.core.state import AppState
from streamdream_web.jobs import uploads as door
from streamdream_web.jobs.file_inspection import InspectionLimits, MediaInfo
from streamdream_web.jobs.queue import Job, JobQueue
from streamdream_web.jobs.service import JobService
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.jobs.visitors import Visitors
from streamdream_web.pages import components
from support.waiting import until

from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

PATIENCE_SECONDS = 30


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture()
def clock() -> Clock:
    return Clock()


@pytest.fixture()
def jobs(tmp_path: Path, clock: Clock) -> Iterator[JobQueue]:
    line = JobQueue("tests", tmp_path / "jobs", max_jobs=32, max_seconds=3600, max_shared_seconds=600, clock=clock)
    yield line
    line.close()


class Gate:
    """Work that goes on until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.order: list[str] = []

    def __call__(self, job: Job) -> None:
        self.order.append(job.title)
        while not self.open.wait(0.005):
            job.check()


def wait_for(job: Job, *states: str) -> Job:
    until(lambda: job.state in states, PATIENCE_SECONDS, about=lambda: job.state)
    return job


def test_invented_sessions_of_one_address_do_not_fill_the_line(jobs: JobQueue) -> None:
    gate = Gate()
    taken = 0
    for number in range(40):
        try:
            jobs.submit(f"invented {number}", "x", gate, "203.0.113.5")
            taken += 1
        except UsageError as error:
            assert "from your address" in str(error)
    assert taken == 4
    jobs.submit("honest", "mine", gate, "198.51.100.7")
    gate.open.set()


def test_addresses_take_turns_not_sessions(jobs: JobQueue) -> None:
    gate = Gate()
    many = [jobs.submit(f"invented {number}", f"greedy {number}", gate, "203.0.113.5") for number in range(4)]
    wait_for(many[0], "running")
    modest = jobs.submit("honest", "modest", gate, "198.51.100.7")
    assert jobs.position(modest) == 1
    gate.open.set()
    for job in (*many, modest):
        wait_for(job, "done")
    assert gate.order[:2] == ["greedy 0", "modest"]


def test_a_video_has_less_time_while_another_address_waits(jobs: JobQueue, clock: Clock) -> None:
    gate = Gate()
    long = wait_for(jobs.submit("one", "long", gate, "203.0.113.5"), "running")
    own = jobs.submit("one", "own", gate, "203.0.113.5")
    near = jobs.submit("two", "near", gate, "203.0.113.5")
    clock.seconds += 700
    time.sleep(0.05)
    assert long.state == "running"  # those of its own address wait longer
    jobs.cancel(near)
    clock.seconds += 4000
    time.sleep(0.05)
    assert long.state == "running"  # nobody gives way to themselves
    assert "others wait" not in components.job_card(long, jobs, "")
    jobs.cancel(own)
    clock.seconds = long.began_seconds + 400
    other = jobs.submit("other", "other", gate, "198.51.100.7")
    assert "stops in about 3 min" in components.job_card(long, jobs, "")
    clock.seconds += 201
    assert "others wait" in wait_for(long, "failed").error
    wait_for(other, "running")
    gate.open.set()


# --- files


@pytest.fixture()
def uploads(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    """Nothing is looked at, which would take a process for each of hundreds of files."""
    monkeypatch.setattr(door.file_inspection, "inspect", lambda path, suffix, limits: MediaInfo(".png", 1, 1))
    kept = Uploads(tmp_path / "uploads", InspectionLimits(megabytes=1, seconds=60, pixels=10**6), clock=clock)
    yield kept
    kept.close()


def give(uploads: Uploads, visitor: str, address: str, size: int = 10) -> Upload:
    return uploads.claim(uploads.take(bytes(size), "a.png", address).token, visitor)


def test_one_address_cannot_shut_the_door_for_others(uploads: Uploads, clock: Clock) -> None:
    """32 invented visitors claim 8 files each, and are not seen again."""
    mine = give(uploads, "honest", "198.51.100.7")
    for visitor in range(32):
        for _ in range(8):
            clock.seconds += 0.1
            give(uploads, f"invented {visitor}", "203.0.113.5")
    other = give(uploads, "newcomer", "192.0.2.9")
    assert mine.path.exists() and other.path.exists()
    assert len(list(uploads.folder.iterdir())) == 64 + 2  # a quarter of all, and these two


def test_many_addresses_make_room_for_one_more(uploads: Uploads, clock: Clock) -> None:
    """The oldest file of the address that has most goes first."""
    mine = give(uploads, "honest", "198.51.100.7")
    many = [give(uploads, f"invented {number} {part}", f"203.0.113.{number}") for number in range(8)
            for part in range(40)]
    assert len(list(uploads.folder.iterdir())) == 256
    other = give(uploads, "newcomer", "192.0.2.9")
    assert mine.path.exists() and other.path.exists() and not many[0].path.exists()
    assert len(list(uploads.folder.iterdir())) == 256


def test_files_of_one_address_weigh_no_more_than_its_share(uploads: Uploads) -> None:
    files = [give(uploads, f"invented {number}", "203.0.113.5", 900_000) for number in range(8)]
    assert [upload.path.exists() for upload in files] == [False] * 3 + [True] * 5  # 5 MB of 20


def test_files_of_visitors_who_are_gone_expire(uploads: Uploads, clock: Clock) -> None:
    gone, here = give(uploads, "gone", "203.0.113.5"), give(uploads, "here", "203.0.113.5")
    clock.seconds += EXPIRE_SECONDS - 1
    uploads.seen("here")
    clock.seconds += 2
    uploads.sweep()
    assert not gone.path.exists() and here.path.exists()
    assert give(uploads, "back", "203.0.113.5").path.exists()


def test_visitors_who_do_nothing_are_forgotten(clock: Clock) -> None:
    visitors = Visitors(clock)
    for name in ("gone", "busy", "here"):
        visitors.seen(name, "203.0.113.5")
    clock.seconds += EXPIRE_SECONDS - 1
    visitors.seen("here")
    clock.seconds += 2
    assert visitors.expired(busy={"busy"}) == ["gone"] and visitors.address("here") == "203.0.113.5"


def test_invented_visitors_take_bounded_memory(clock: Clock) -> None:
    visitors = Visitors(clock)
    for number in range(MAX_VISITORS + 10):
        visitors.seen(str(number))
    assert visitors.expired() == [str(number) for number in range(10)]


def request(visitor: str, address: str) -> Any:
    """As Gradio hands it to an event."""
    return SimpleNamespace(session_hash=visitor, client=SimpleNamespace(host=address))


def test_a_job_and_the_fetch_of_its_result_keep_the_files_of_a_visitor(clock: Clock, monkeypatch: pytest.MonkeyPatch
                                                                       ) -> None:
    monkeypatch.setattr(door.file_inspection, "inspect", lambda path, suffix, limits: MediaInfo(".png", 1, 1))
    app_state, gate = AppState(WebSettings(), DreamSettings(), StreamSettings()), Gate()
    jobs_service = JobService(app_state, clock)
    app_state.closing.append(jobs_service.close)
    try:
        here, gone = (jobs_service.touch(request(visitor, "203.0.113.5")) for visitor in ("here", "gone"))
        mine, theirs = (give(jobs_service.uploads, visitor, "203.0.113.5") for visitor in (here, gone))
        job = wait_for(jobs_service.start(jobs_service.videos, here, "x", lambda job, turn: gate(job)), "running")
        assert job.address == "203.0.113.5"
        clock.seconds += EXPIRE_SECONDS + 1
        jobs_service.sweep()
        assert mine.path.exists() and not theirs.path.exists()
        gate.open.set()
        wait_for(job, "done")
        clock.seconds += EXPIRE_SECONDS - 1
        jobs_service.fetched(job)
        clock.seconds += EXPIRE_SECONDS - 1
        jobs_service.sweep()  # the result goes, after as long
        assert jobs_service.find_job(job.token) is None and mine.path.exists()
        clock.seconds += 2
        jobs_service.sweep()
        assert not mine.path.exists()
    finally:
        app_state.close()
