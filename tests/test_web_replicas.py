"""Several servers share a folder: each sees jobs, files and logins of the others, and takes over what one leaves."""
from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.core.kept_folder import join_folder
from streamdream_web.core.replica import NOBODY, Replica
from streamdream_web.jobs import examples, job_store, queue
from streamdream_web.jobs.job import Job
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import JobRequest
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.server import startup
from support.commands import streamdream
from support.waiting import until
from support.web_client import ask, running
from support.web_jobs import BlockedWork, ManualClock, submit, wait_for, work_of
from support.web_uploads import LIMITS

from streamdream.backends import Backend
from streamdream.errors import UsageError
from streamdream.media import images
from streamdream.settings import DreamSettings, WebSettings

CHEAP = DreamSettings(layers="mixed0", warmup_steps=0, octaves=1)
HOUR = 3600
TOKEN = "a-secret-of-twenty"
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


def test_a_job_of_one_server_is_seen_in_the_others_as_it_goes_on(begin: Any, picture: Upload, eager: Backend) -> None:
    work = BlockedWork()

    def dream(request: JobRequest) -> Callable[[Job], None]:
        def run(job: Job) -> None:
            job.progress(3, 10)
            work(job)
            work_of(eager)(request)(job)

        return run

    first, second = begin(dream), begin(dream)
    job, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    wait_for(job, "running")
    until(lambda: job.done == 3)
    first.jobs.synchronize()
    second.jobs.synchronize()
    seen = second.find(job)
    assert (seen.state, seen.done, seen.total, seen.title) == ("running", 3, 10, "lion.png")
    assert second.jobs.position(second.find(waiting)) == 1 and second.find(waiting).state == "waiting"
    assert not second.jobs.is_busy and not second.jobs.lengths, "it counts as its own"
    assert second.jobs.wait_seconds(second.find(waiting)) is None
    work.release.set()
    wait_for(waiting)
    seen = second.seen(job, "done")
    assert seen.result and seen.result.read_bytes().startswith(b"\x89PNG")
    second.jobs.discard(seen)
    first.jobs.synchronize()
    assert first.jobs.get(job.token) is None and not job.folder.exists() and first.find(waiting)


def test_a_job_of_a_server_that_died_goes_on_in_one_other(begin: Any, picture: Upload, eager: Backend) -> None:
    work = BlockedWork()
    first, second, third = begin(partial(same, work)), begin(work_of(eager)), begin(work_of(eager))
    running, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    wait_for(running, "running")
    for _ in range(2):
        for server in (second, third):
            server.jobs.synchronize()
    assert not second.jobs.is_busy and not third.jobs.is_busy, "its server lives"
    first.die()
    for server in (third, second):
        server.jobs.synchronize()
    for job in (running, waiting):
        assert wait_for(third.find(job)).state == "done"
        assert second.seen(job, "done").owner == third.replica.name
    assert third.find(running).attempts == 2 and work.started == ["lion.png"]
    third.replica.remove_abandoned({job.owner for job in third.jobs.jobs()})
    assert {path.stem for path in (running.folder.parents[1] / "replicas").iterdir()} == {
        second.replica.name, third.replica.name}


def same(work: BlockedWork, request: JobRequest) -> BlockedWork:
    return work


def has_begun(work: BlockedWork) -> bool:
    return bool(work.started)


def test_a_job_that_ends_each_of_its_servers_is_given_up(begin: Any, picture: Upload, eager: Backend) -> None:
    for attempt in range(queue.MAX_ATTEMPTS):
        work = BlockedWork()
        server = begin(partial(same, work))
        if not attempt:
            job = submit(server.jobs, picture, CHEAP)
        until(partial(has_begun, work))
        server.die()
    last = begin(work_of(eager))
    assert "the server stopped 3 times" in wait_for(last.find(job)).error


def test_a_server_that_drains_gives_waiting_jobs_to_others_and_ends_its_own(begin: Any, picture: Upload,
                                                                            eager: Backend) -> None:
    work = BlockedWork()
    first, second = begin(partial(same, work)), begin(work_of(eager))
    job, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    wait_for(job, "running")
    first.jobs.drain()
    late = submit(first.jobs, picture, CHEAP, visitor="her")
    assert first.jobs.is_running
    second.jobs.synchronize()
    for taken in (waiting, late):
        assert wait_for(second.find(taken)).state == "done"
    work.release.set()
    wait_for(job)
    assert work.started == ["lion.png"] and not first.jobs.is_running and not first.jobs.is_busy
    first.seen(waiting, "done")


def test_a_server_that_is_stopped_leaves_its_jobs_to_others_at_once(begin: Any, picture: Upload,
                                                                    eager: Backend) -> None:
    first, second = begin(partial(same, BlockedWork())), begin(work_of(eager))
    job, waiting = submit(first.jobs, picture, CHEAP), submit(first.jobs, picture, CHEAP)
    wait_for(job, "running")
    first.jobs.close()
    assert {json.loads((each.folder / job_store.RECORD).read_text())["owner"] for each in (job, waiting)} == {NOBODY}
    second.jobs.synchronize()
    for each in (job, waiting):
        assert wait_for(second.find(each)).state == "done"
    assert second.find(job).attempts == 1


@pytest.mark.parametrize("dies", [False, True])
def test_a_visitor_cancels_a_job_of_another_server(begin: Any, picture: Upload, eager: Backend, dies: bool) -> None:
    work = BlockedWork()
    first, second = begin(partial(same, work)), begin(work_of(eager))
    job = submit(first.jobs, picture, CHEAP)
    wait_for(job, "running")
    second.jobs.synchronize()
    second.jobs.discard(second.find(job))
    assert second.find(job).stop.is_set()
    if dies:
        first.die()
        begin(work_of(eager))
        assert not job.folder.exists() and work.started == ["lion.png"]
        return
    first.jobs.synchronize()
    until(lambda: first.jobs.get(job.token) is None)
    second.jobs.synchronize()
    assert second.jobs.get(job.token) is None and not job.folder.exists()


def test_what_another_server_is_making_is_not_removed(begin: Any, tmp_path: Path, eager: Backend) -> None:
    server = begin(work_of(eager))
    young, old = (tmp_path / "shared" / "jobs" / name for name in ("young", "old"))
    for folder in (young, old):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * HOUR,) * 2)
    server.jobs.sweep()
    begin(work_of(eager)).jobs.sweep()
    assert young.exists() and not old.exists()


# --- uploads


def shared(folder: Path, **more: Any) -> Uploads:
    return Uploads(folder / "uploads", LIMITS, keep_seconds=HOUR, keeps=True, is_shared=True, **more)


def give(uploads: Uploads, name: str, visitor: str) -> Upload:
    example = examples.find(name)
    assert example is not None
    return uploads.copy(example.path, example.file_name, example.facts, "", visitor)


def test_a_file_that_one_server_has_received_is_found_by_the_others(tmp_path: Path) -> None:
    first, second = shared(tmp_path), shared(tmp_path)
    cat, dahlia = give(first, "cat", "me"), give(first, "dahlia", "me")
    assert second.find(cat.token, "her") is None and second.find("../" + cat.token, "me") is None
    found = second.find(cat.token, "me")
    assert found is not None and found.path == cat.path
    assert second.claim(dahlia.token, "me").name == "dahlia.jpg"
    second.drop(cat.token)
    assert first.find(cat.token, "me") is None and first.find(dahlia.token, "me")
    with pytest.raises(UsageError, match="choose it again"):
        first.claim(cat.token, "me")


def test_a_file_is_kept_while_its_visitor_is_seen_by_any_server(tmp_path: Path) -> None:
    clock = ManualClock()
    first = shared(tmp_path, clock=clock)
    cat, dahlia = give(first, "cat", "me"), give(first, "dahlia", "her")
    for upload in (cat, dahlia):
        os.utime(upload.path.with_suffix(".json"), (time.time() - 0.9 * HOUR,) * 2)
    second = shared(tmp_path)
    second.seen("me")
    second.sweep()
    clock.seconds += 1.1 * HOUR
    os.utime(dahlia.path.with_suffix(".json"), (time.time() - 1.1 * HOUR,) * 2)
    first.sweep()
    assert first.find(cat.token, "me") and first.find(dahlia.token, "her") is None


def test_a_file_that_another_server_is_receiving_is_not_removed(tmp_path: Path) -> None:
    first = shared(tmp_path)
    partial, stray = (first.folder / f"{letter * 24}.mp4" for letter in "ab")
    for path in (partial, stray):
        path.write_bytes(b"part")
    os.utime(stray, (time.time() - 2 * HOUR,) * 2)
    shared(tmp_path)
    assert partial.exists() and not stray.exists()


# --- servers


def test_a_logout_and_a_revoked_token_hold_on_all_servers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"token": f"anna:{TOKEN}", "shared_folder": str(tmp_path / "shared")}
    with running(**settings) as first, running(**settings) as second:
        def login() -> str:
            _, headers, _ = ask(first, f"/?token={TOKEN}")
            return str(headers["Set-Cookie"]).split(";")[0]

        cookie, other = login(), login()
        assert ask(second, "/dreams", cookie=cookie)[0] == ask(first, "/dreams", cookie=cookie)[0] == 200
        ask(first, "/logout", method="POST", cookie=cookie)
        until(lambda: ask(second, "/dreams", cookie=cookie)[0] == 401, 10)
        assert ask(second, "/dreams", cookie=other)[0] == 200
        assert streamdream("web", "--revoke", "anna", "--shared-folder", tmp_path / "shared").returncode == 0
        until(lambda: ask(first, "/dreams", cookie=other)[0] == ask(second, "/dreams", cookie=other)[0] == 401, 10)


@pytest.mark.parametrize(("options", "words"), [
    ({"token": "new"}, "give all the same one"),
    ({"token": "anna:new"}, "give all the same one"),
    ({"share": True}, "give all the same one"),
    ({"keep_hours": 0.0}, "nothing is kept"),
    ({"keep_folder": "x"}, "give one of them"),
    ({"cluster": "nowhere"}, "such as ray://head:10001"),
])
def test_what_does_not_go_with_a_shared_folder_is_one_error_line(options: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        startup.check(WebSettings(**{"port": 0, "shared_folder": str(tmp_path / "shared"), **options}))


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with pytest.raises(UsageError, match="holds other files"):
        join_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        join_folder(tmp_path / "file" / "folder")


def test_an_invented_owner_names_no_other_file(tmp_path: Path) -> None:
    join_folder(tmp_path / "shared").close()
    replica = Replica(tmp_path / "shared")
    with replica.taking_over("../../film") as is_gone:
        assert is_gone
    with replica.taking_over(replica.name) as is_gone:
        assert not is_gone
    replica.close()
    assert not list(tmp_path.rglob("film*"))
