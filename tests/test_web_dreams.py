"""Dreams outlive the page, and with a folder that is kept also the server, however it ends."""
from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.auth.visitor_cookie import visitor_of
from streamdream_web.core import kept_folder
from streamdream_web.jobs import job_store, queue, retention, tasks
from streamdream_web.jobs.job import Job
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.request import JobRequest
from streamdream_web.jobs.uploads import Uploads
from support.waiting import until
from support.web_client import Running, ask, running
from support.web_jobs import TIMEOUT_SECONDS, ManualClock, submit, times_and_sound, wait_for, work_of

from streamdream.backends import Backend
from streamdream.errors import UsageError
from streamdream.media import images
from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings, RenderSettings

CHEAP = DreamSettings(layers="mixed0", warmup_steps=0, octaves=1)
SPAN = TimeRange.of(1.0, end=2.0)
ANNA, BOB = "streamdream_visitor=" + "a" * 32, "streamdream_visitor=" + "b" * 32


@pytest.fixture()
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ENCODE", RenderSettings(sdr=True, chunk_frames=10))


@contextmanager
def kept(folder: Path, eager: Backend, **more: Any) -> Iterator[JobQueue]:
    opened = JobQueue("tests", folder / "jobs", work_of=work_of(eager), keeps=True, **more)
    try:
        yield opened
    finally:
        opened.close()


def find(jobs: JobQueue, job: Job) -> Job:
    found = jobs.get(job.token)
    assert found is not None
    return found


def test_a_restarted_queue_goes_on_after_the_last_chunk(tmp_path: Path, eager: Backend, uploads: Uploads, world: Path,
                                                        short_chunks: None) -> None:
    clip = uploads.take(world.read_bytes(), "world.mp4")
    with kept(tmp_path, eager) as first:
        whole = wait_for(submit(first, clip, CHEAP, SPAN))
        job = submit(first, clip, CHEAP, SPAN)
        until(lambda: job.done >= 12 or job.finished)
        assert not job.finished
    uploads.drop(clip.token)  # the job has its own
    assert job.state == "waiting" and job.folder.is_dir()
    with kept(tmp_path, eager) as second:
        again = find(second, job)
        until(lambda: again.done)
        assert again.done >= 10 or again.finished, "it began anew"
        assert wait_for(again).state == "done", again.error
        result, before = again.result, find(second, whole).result
        assert result and before and times_and_sound(result) == times_and_sound(before)
        assert again.title == "world.mp4" and again.number > whole.number
    assert not list(job.folder.glob(".*")), "the chunks are left"


def test_a_job_that_another_version_has_begun_starts_over(tmp_path: Path, eager: Backend, uploads: Uploads, world: Path,
                                                          short_chunks: None) -> None:
    clip = uploads.take(world.read_bytes(), "world.mp4")
    with kept(tmp_path, eager) as first:
        job = submit(first, clip, CHEAP, SPAN)
        until(lambda: job.done >= 12 or job.finished)
    record = job.folder / job_store.RECORD
    values = json.loads(record.read_text())
    values["request"]["dream"]["steps"] = 2  # as if a version had another meaning of the settings
    values["attempts"] = 1
    record.write_text(json.dumps(values))
    with kept(tmp_path, eager) as second:
        again = wait_for(find(second, job))
        assert again.state == "done" and again.done == 30, again.error


def test_a_job_that_ends_the_server_again_and_again_is_given_up(tmp_path: Path, eager: Backend, uploads: Uploads,
                                                                world: Path) -> None:
    clip = uploads.take(world.read_bytes(), "world.mp4")
    with kept(tmp_path, eager) as first:
        job = submit(first, clip, CHEAP, SPAN)
    record = job.folder / job_store.RECORD
    values = {**json.loads(record.read_text()), "attempts": queue.MAX_ATTEMPTS, "state": "running"}
    record.write_text(json.dumps(values))
    with kept(tmp_path, eager) as second:
        assert "the server stopped 3 times" in wait_for(find(second, job)).error
    with kept(tmp_path, eager) as third:
        assert find(third, job).state == "failed"  # and can still be read


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"format": 1, "token": "x"}', "request", "result", "link"])
def test_a_damaged_record_is_removed_and_costs_no_other_job(damage: str, tmp_path: Path, eager: Backend,
                                                            uploads: Uploads, lion: Any) -> None:
    picture = uploads.take(images.encode_image(lion[:64, :64], ".png", "x"), "a.png")
    with kept(tmp_path, eager) as first:
        good, bad = (wait_for(submit(first, picture, CHEAP)) for _ in range(2))
    record = bad.folder / job_store.RECORD
    if damage == "request":
        record.write_text(json.dumps({**json.loads(record.read_text()), "request": {"kind": "picture"}}))
    elif damage == "result":
        (bad.folder / tasks.STILL).unlink()
    elif damage == "link":
        bad.folder.rename(tmp_path / "elsewhere")
        bad.folder.symlink_to(tmp_path / "elsewhere")
    else:
        record.write_text(damage)
    with kept(tmp_path, eager) as second:
        assert [job.token for job in second.jobs()] == [good.token]
        assert find(second, good).state == "done"


def test_a_record_of_another_version_is_left_alone(tmp_path: Path, eager: Backend, uploads: Uploads, lion: Any) -> None:
    picture = uploads.take(images.encode_image(lion[:64, :64], ".png", "x"), "a.png")
    with kept(tmp_path, eager) as first:
        job = wait_for(submit(first, picture, CHEAP))
    record = job.folder / job_store.RECORD
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "request": {**values["request"], "of tomorrow": 1}}))
    with kept(tmp_path, eager) as second:
        assert not second.jobs() and (job.folder / tasks.STILL).exists()
    record.write_text(json.dumps(values))
    with kept(tmp_path, eager) as third:
        assert find(third, job).state == "done"
    os.utime(record, (0, 0))
    record.write_text("{")
    os.utime(record, (0, 0))
    with kept(tmp_path, eager):
        assert not job.folder.exists()


def test_a_server_that_stops_keeps_what_is_whole_and_forgets_what_was_cancelled(tmp_path: Path, eager: Backend,
                                                                                uploads: Uploads, lion: Any) -> None:
    picture = uploads.take(images.encode_image(lion[:64, :64], ".png", "x"), "a.png")
    begun, going = threading.Event(), threading.Event()

    def finish(job: Job) -> None:
        begun.set()
        going.wait(TIMEOUT_SECONDS)  # as in the joining of a video, which asks nobody
        job.result = job.folder / tasks.STILL
        job.result.write_bytes(b"dream")

    for cancelled in (False, True):
        begun.clear()
        going.clear()
        jobs = JobQueue("tests", tmp_path / "jobs", work_of=lambda request: finish, keeps=True)
        job = submit(jobs, picture, CHEAP)
        assert begun.wait(TIMEOUT_SECONDS)
        if cancelled:
            jobs.cancel(job)
            assert not (job.folder / job_store.RECORD).exists()  # nor does it come back when the process is killed now
        threading.Timer(0.3, going.set).start()
        jobs.close()
        with kept(tmp_path, eager) as again:
            found = again.get(job.token)
            assert found is None if cancelled else found is not None and found.state == "done"


def test_a_folder_with_other_files_is_not_taken_for_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(UsageError, match="holds other files"):
        kept_folder.lock_folder(tmp_path)
    assert (tmp_path / "videos").is_dir()
    kept_folder.lock_folder(tmp_path / "new").release()
    (tmp_path / "new" / "videos").mkdir()
    lock = kept_folder.lock_folder(tmp_path / "new")
    with pytest.raises(UsageError, match="in use by another server"):
        kept_folder.lock_folder(tmp_path / "new")
    lock.release()


def test_results_expire_over_a_restart(tmp_path: Path, eager: Backend, uploads: Uploads, lion: Any) -> None:
    picture = uploads.take(images.encode_image(lion, ".png", "x"), "lion.png")
    with kept(tmp_path, eager) as first:
        job = wait_for(submit(first, picture, CHEAP))
    record = job.folder / job_store.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "ended_at": time.time() - 3000}))
    clock = ManualClock()
    with kept(tmp_path, eager, keep_seconds=3600, clock=clock) as second:
        second.sweep()
        assert find(second, job)
        clock.seconds += 601
        second.sweep()
        assert second.get(job.token) is None and not job.folder.exists()


def test_the_oldest_results_of_the_address_with_most_go_first(tmp_path: Path) -> None:
    jobs = []
    for number, (address, size) in enumerate([("a", 3), ("b", 2), ("a", 4), ("a", 1)]):
        job = Job("x", "me", lambda job: None, tmp_path / str(number), address, state="done", ended_seconds=number)
        job.request = object()
        job.folder.mkdir()
        (job.folder / "dream.mp4").write_bytes(bytes(size))
        jobs.append(job)
    assert retention.surplus(jobs, 10) == []
    assert retention.surplus(jobs, 7) == [jobs[0]]
    assert retention.surplus(jobs, 4) == [jobs[0], jobs[2]]
    assert retention.surplus(jobs, 10, max_jobs=2) == [jobs[0], jobs[2]]


# --- the page's routes


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running() as served:
        yield served


def dreams_of(web: Running, cookie: str, query: str = "") -> list[dict[str, Any]]:
    status, _, told = ask(web, f"/dreams{query}", cookie=cookie)
    assert status == 200
    found: list[dict[str, Any]] = json.loads(told)["dreams"]
    return found


def dream_picture(web: Running, lion: Any, cookie: str) -> Job:
    service = web.jobs_service
    visitor = visitor_name(cookie)
    upload = service.uploads.take(images.encode_image(lion, ".png", "x"), "lion <b>.png", "127.0.0.1")
    service.uploads.claim(upload.token, visitor)
    return service.dream(visitor, upload, JobRequest.of(upload, "inception_v3", 64, CHEAP, TimeRange(), {}), {})


def visitor_name(cookie: str) -> str:
    name, _, value = cookie.partition("=")
    return str(visitor_of({name: value}))


def test_a_dream_belongs_to_its_visitor_and_is_seen_by_who_has_its_link(web: Running, lion: Any) -> None:
    job = wait_for(dream_picture(web, lion, ANNA))
    mine, = dreams_of(web, ANNA)
    assert (mine["state"], mine["name"], mine["own"], mine["kind"]) == ("done", "lion <b>.png", True, "picture")
    assert mine["settings"]["layers"] == "mixed0" and mine["settings"]["field_height"] == 64
    assert dreams_of(web, BOB) == [] and dreams_of(web, "") == []
    linked, = dreams_of(web, BOB, f"?with={job.token},nonsense")
    assert linked["token"] == job.token and not linked["own"]
    for part, kind in (("preview", "image/jpeg"), ("original", "image/png")):
        status, headers, data = ask(web, f"/dreams/{job.token}/{part}", cookie=BOB)
        assert (status, headers["Content-Type"], bool(data)) == (200, kind, True)
        assert "no-store" in headers["Cache-Control"]
    assert ask(web, f"/dreams/{job.token}", method="DELETE", cookie=BOB)[0] == 404
    assert ask(web, f"/dreams/{job.token}", method="DELETE")[0] == 404
    assert ask(web, f"/dreams/{job.token}", method="DELETE", cookie=ANNA, origin="http://evil.example")[0] == 403
    assert ask(web, f"/results/{job.token}", cookie=BOB)[0] == 200
    assert ask(web, f"/dreams/{job.token}", method="DELETE", cookie=ANNA)[0] == 204
    assert dreams_of(web, ANNA) == [] and not job.folder.exists()
    for path in (f"results/{job.token}", f"dreams/{job.token}/preview", "dreams/x/original"):
        assert ask(web, f"/{path}")[0] == 404


def test_the_link_of_a_dream_leads_to_no_original_video(web: Running, world: Path) -> None:
    service = web.jobs_service
    upload = service.uploads.take(world.read_bytes(), "world.mp4", "127.0.0.1")
    service.uploads.claim(upload.token, visitor_name(ANNA))
    request = JobRequest.of(upload, "inception_v3", 64, CHEAP, TimeRange.of(0, end=0.1), {})
    job = wait_for(service.dream(visitor_name(ANNA), upload, request, {}))
    assert ask(web, f"/results/{job.token}", cookie=BOB)[0] == 200
    original = f"/dreams/{job.token}/original"
    assert [ask(web, original, cookie=cookie)[0] for cookie in (ANNA, BOB, "")] == [200, 404, 404]
    assert ask(web, f"/dreams/{job.token}", method="DELETE", cookie=ANNA)[0] == 204


def test_a_second_click_is_the_first_job_and_too_many_octaves_are_lowered(web: Running, lion: Any) -> None:
    service = web.jobs_service
    upload = service.uploads.take(images.encode_image(lion[:60, :80], ".png", "x"), "a.png", "127.0.0.1")
    service.uploads.claim(upload.token, visitor_name(BOB))
    settings = DreamSettings(layers="mixed0", octaves=4, warmup_steps=0)
    request = JobRequest.of(upload, "inception_v3", 1080, settings, TimeRange(), {})
    with web.app_state.device_slot("another"):
        one, two = (service.dream(visitor_name(BOB), upload, request, {}) for _ in range(2))
        assert one is two
    assert wait_for(one).state == "done", one.error
    mine, = dreams_of(web, BOB)
    assert mine["settings"]["octaves"] < 4 and "4 octaves are too many" in mine["warnings"][0]


def test_the_cookie_of_a_visitor_stays_and_comes_with_the_page_only(web: Running) -> None:
    _, headers, _ = ask(web, "/")
    cookie = headers["Set-Cookie"]
    assert cookie.startswith("streamdream_visitor=") and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert ask(web, "/", cookie=cookie.partition(";")[0])[1]["Set-Cookie"] == cookie
    assert ask(web, "/", cookie=f"a=b; {cookie.partition(';')[0]}; c=d")[1]["Set-Cookie"] == cookie
    assert ask(web, "/", cookie="streamdream_visitor=short")[1]["Set-Cookie"] != cookie
    assert ask(web, "/dreams")[1]["Set-Cookie"] is None
