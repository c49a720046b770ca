"""No address gets more than its share of jobs, time and files. The tests set the time."""
from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamdream_web.core.limits import EXPIRE_SECONDS, MAX_VISITORS
from streamdream_web.core.state import AppState
from streamdream_web.jobs import uploads as uploads_module
from streamdream_web.jobs.file_inspection import InspectionLimits, MediaInfo
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.service import JobService
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.jobs.visitors import Visitors
from support.web_jobs import BlockedWork, ManualClock, wait_for

from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings


@pytest.fixture()
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture()
def queue(tmp_path: Path, clock: ManualClock) -> Iterator[JobQueue]:
    opened = JobQueue("tests", tmp_path / "jobs", max_jobs=32, max_seconds=3600, max_shared_seconds=600, clock=clock)
    yield opened
    opened.close()


def test_many_sessions_of_one_address_do_not_fill_the_queue(queue: JobQueue) -> None:
    work = BlockedWork()
    taken = 0
    for number in range(40):
        try:
            queue.submit(f"session {number}", "x", work, "203.0.113.5")
            taken += 1
        except UsageError as error:
            assert "from your address" in str(error)
    assert taken == 4
    queue.submit("other", "mine", work, "198.51.100.7")
    work.release.set()


def test_the_queue_alternates_between_addresses_not_sessions(queue: JobQueue) -> None:
    work = BlockedWork()
    many = [queue.submit(f"session {number}", f"first {number}", work, "203.0.113.5") for number in range(4)]
    wait_for(many[0], "running")
    second = queue.submit("other", "second", work, "198.51.100.7")
    assert queue.position(second) == 1
    work.release.set()
    for job in (*many, second):
        wait_for(job, "done")
    assert work.started[:2] == ["first 0", "second"]


def test_a_job_has_less_time_while_another_address_waits(queue: JobQueue, clock: ManualClock) -> None:
    work = BlockedWork()
    long = wait_for(queue.submit("one", "long", work, "203.0.113.5"), "running")
    own = queue.submit("one", "own", work, "203.0.113.5")
    near = queue.submit("two", "near", work, "203.0.113.5")
    clock.seconds += 700
    work.wait_for_checks()
    assert long.state == "running"  # those of its own address wait longer
    queue.cancel(near)
    clock.seconds += 4000
    work.wait_for_checks()
    assert long.state == "running"  # nobody gives way to themselves
    assert queue.spare_seconds(long) == math.inf
    queue.cancel(own)
    clock.seconds = long.began_seconds + 400
    other = queue.submit("other", "other", work, "198.51.100.7")
    assert queue.spare_seconds(long) == 200
    clock.seconds += 201
    assert "others wait" in wait_for(long, "failed").error
    wait_for(other, "running")
    work.release.set()


# --- files


@pytest.fixture()
def uploads(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    """Uploads that are not inspected, which would take a process for each of hundreds of files."""
    monkeypatch.setattr(uploads_module.file_inspection, "inspect", lambda path, suffix, limits: MediaInfo(".png", 1, 1))
    kept = Uploads(tmp_path / "uploads", InspectionLimits(megabytes=1, seconds=60, pixels=10**6), clock=clock)
    yield kept
    kept.close()


def give(uploads: Uploads, visitor: str, address: str, size: int = 10) -> Upload:
    return uploads.claim(uploads.take(bytes(size), "a.png", address).token, visitor)


def test_files_of_one_address_do_not_evict_those_of_others(uploads: Uploads, clock: ManualClock) -> None:
    """32 sessions claim 8 files each, and are not seen again."""
    mine = give(uploads, "first", "198.51.100.7")
    for visitor in range(32):
        for _ in range(8):
            clock.seconds += 0.1
            give(uploads, f"session {visitor}", "203.0.113.5")
    other = give(uploads, "newcomer", "192.0.2.9")
    assert mine.path.exists() and other.path.exists()
    assert len(list(uploads.folder.iterdir())) == 64 + 2  # a quarter of all, and these two


def test_the_oldest_file_of_the_address_with_most_is_evicted_first(uploads: Uploads, clock: ManualClock) -> None:
    mine = give(uploads, "first", "198.51.100.7")
    many = [give(uploads, f"session {number} {part}", f"203.0.113.{number}") for number in range(8)
            for part in range(40)]
    assert len(list(uploads.folder.iterdir())) == 256
    other = give(uploads, "newcomer", "192.0.2.9")
    assert mine.path.exists() and other.path.exists() and not many[0].path.exists()
    assert len(list(uploads.folder.iterdir())) == 256


def test_bytes_of_one_address_are_limited_to_its_share(uploads: Uploads) -> None:
    files = [give(uploads, f"session {number}", "203.0.113.5", 900_000) for number in range(8)]
    assert [upload.path.exists() for upload in files] == [False] * 3 + [True] * 5  # 5 MB of 20


def test_files_expire_when_their_visitor_is_gone(uploads: Uploads, clock: ManualClock) -> None:
    gone, here = give(uploads, "gone", "203.0.113.5"), give(uploads, "here", "203.0.113.5")
    clock.seconds += EXPIRE_SECONDS - 1
    uploads.seen("here")
    clock.seconds += 2
    uploads.sweep()
    assert not gone.path.exists() and here.path.exists()
    assert give(uploads, "back", "203.0.113.5").path.exists()


def test_the_number_of_visitors_is_bounded() -> None:
    visitors = Visitors()
    for number in range(MAX_VISITORS + 10):
        visitors.seen(str(number), "203.0.113.5")
    assert not visitors.address("9") and visitors.address("10") == "203.0.113.5"


def test_files_and_results_expire_without_their_visitor(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module.file_inspection, "inspect", lambda path, suffix, limits: MediaInfo(".png", 1, 1))
    app_state, work = AppState(WebSettings(keep_hours=0), DreamSettings(), StreamSettings()), BlockedWork()
    jobs_service = JobService(app_state, clock)
    app_state.closing.append(jobs_service.close)
    try:
        here, gone = (jobs_service.touch(request(visitor, "203.0.113.5")) for visitor in ("here", "gone"))
        mine, theirs = (give(jobs_service.uploads, visitor, "203.0.113.5") for visitor in (here, gone))
        job = wait_for(jobs_service.start(jobs_service.videos, here, "x", lambda job, _: work(job)), "running")
        assert job.address == "203.0.113.5"
        clock.seconds += EXPIRE_SECONDS - 1
        jobs_service.touch(request("here", "203.0.113.5"))
        clock.seconds += 2
        jobs_service.sweep()
        assert mine.path.exists() and not theirs.path.exists()
        work.release.set()
        wait_for(job, "done")
        clock.seconds += EXPIRE_SECONDS + 1
        jobs_service.sweep()
        assert jobs_service.find_job(job.token) is None and not mine.path.exists()
    finally:
        app_state.close()


def request(visitor: str, address: str) -> Any:
    """As Gradio hands it to an event, of a browser that keeps no cookie."""
    return SimpleNamespace(session_hash=visitor, cookies={}, client=SimpleNamespace(host=address))
