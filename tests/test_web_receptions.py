"""Files that are being received: how many, how long, and that a lost network loses nothing."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.core import limits
from streamdream_web.jobs.receptions import Busy, Interrupted, WrongOffset
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.pages import components
from support.web_jobs import ManualClock
from support.web_uploads import LIMITS, clip, files, opened, pieces

from streamdream.errors import UsageError


@pytest.fixture()
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    with opened(tmp_path) as kept:
        yield kept


def test_a_body_that_stalls_is_refused(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    with pytest.raises(UsageError, match="too slow"):
        asyncio.run(uploads.receive("a.mp4", silent()))
    assert not files(uploads)


def test_uploads_of_one_address_are_limited(uploads: Uploads, tmp_path: Path) -> None:
    data = clip(tmp_path)

    async def crowd() -> list[Any]:
        going = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await going.wait()
            yield data

        async def other() -> Upload:
            async def chunks() -> AsyncIterator[bytes]:
                yield data
            try:
                return await uploads.receive("a.mp4", chunks(), address="another")
            finally:
                going.set()

        many = [uploads.receive("a.mp4", slow(), address="one") for _ in range(6)]
        return await asyncio.gather(*many, other(), return_exceptions=True)

    answers = asyncio.run(crowd())
    assert isinstance(answers[-1], Upload)
    assert sum(isinstance(answer, UsageError) for answer in answers[:-1]) == 6 - limits.MAX_UPLOADS_PER_ADDRESS


def test_a_slow_upload_ends_when_another_address_waits(tmp_path: Path) -> None:
    """The slowest one has to end once another address wants its place, and it has had its time."""
    clock = ManualClock()
    uploads = Uploads(tmp_path / "uploads", LIMITS, clock=clock)
    answers: dict[str, Any] = {}

    async def receive(name: str, address: str, *chunks: bytes, ends: bool = False) -> None:
        async def slow() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk
            if not ends:
                await asyncio.sleep(60)

        try:
            answers[name] = await uploads.receive("mask.png", slow(), address=address)
        except UsageError as error:
            answers[name] = str(error)

    async def crowd() -> None:
        sizes = {f"slow {number}": 1 if number == 4 else 2 for number in range(limits.MAX_UPLOADS)}
        slow = [asyncio.create_task(receive(name, f"203.0.113.{number // 3}", bytes(size)))
                for number, (name, size) in enumerate(sizes.items())]
        await asyncio.sleep(0.1)
        await receive("early", "198.51.100.7", components.one_pixel(), ends=True)
        clock.seconds += limits.SHARED_UPLOAD_SECONDS + 1
        await receive("late", "198.51.100.7", components.one_pixel(), ends=True)
        await asyncio.wait(slow, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(crowd())
    uploads.close()
    assert "too many files" in answers["early"] and isinstance(answers["late"], Upload)
    assert {name for name in answers if name.startswith("slow")} == {"slow 4"} and "too slow" in answers["slow 4"]


# --- in several requests


async def silent(*data: bytes) -> AsyncIterator[bytes]:
    """These bytes, and then nothing, as from a browser whose network is lost."""
    async for piece in pieces(*data):
        yield piece
    await asyncio.sleep(60)


def test_an_upload_goes_on_where_it_broke_off(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.05)
    data = clip(tmp_path)

    async def visit() -> Upload | None:
        reception = await uploads.receptions.begin("a.mp4", len(data), "me", "")
        assert uploads.receptions.find(reception.token, "her") is None
        with pytest.raises(Interrupted):
            await uploads.go_on(reception, silent(data[:1000]), 0)
        assert uploads.receptions.find(reception.token, "me") is reception and reception.received_bytes == 1000
        with pytest.raises(WrongOffset, match="byte 1000"):
            await uploads.go_on(reception, pieces(data), 0)
        assert await uploads.go_on(reception, pieces(data[1000:2000]), 1000) is None
        return await uploads.go_on(reception, pieces(data[2000:]), 2000)

    upload = asyncio.run(visit())
    assert upload is not None and upload.path.read_bytes() == data and files(uploads) == [upload.path]
    assert uploads.find(upload.token, "me") is upload and uploads.find(upload.token, "her") is None


def test_a_new_request_ends_the_one_whose_connection_is_lost(uploads: Uploads, tmp_path: Path) -> None:
    data = clip(tmp_path)

    async def visit() -> Upload | None:
        reception = await uploads.receptions.begin("a.mp4", len(data), "me", "")
        lost = asyncio.create_task(uploads.go_on(reception, silent(data[:1000]), 0))
        while reception.received_bytes < 1000:
            await asyncio.sleep(0.01)
        upload = await uploads.go_on(reception, pieces(data[1000:]), 1000)
        with pytest.raises(Interrupted):
            await lost
        return upload

    upload = asyncio.run(visit())
    assert upload is not None and upload.path.read_bytes() == data


def test_more_bytes_than_were_said_are_refused(uploads: Uploads) -> None:
    async def visit() -> None:
        with pytest.raises(UsageError, match=r"too large \(9.0 MB; the limit is 8 MB\)"):
            await uploads.receptions.begin("a.mp4", 9_000_000, "me", "")
        reception = await uploads.receptions.begin("a.mp4", 100, "me", "")
        with pytest.raises(UsageError, match="larger than was said") as refused:
            await uploads.go_on(reception, pieces(bytes(101)), 0)
        assert not isinstance(refused.value, (Busy, Interrupted, WrongOffset))
        uploads.receptions.drop(reception)

    asyncio.run(visit())
    assert not files(uploads)


def test_the_time_of_an_upload_is_that_of_all_its_requests(tmp_path: Path) -> None:
    """Nobody keeps a place for longer by sending many short requests."""
    clock = ManualClock()
    uploads = Uploads(tmp_path / "uploads", LIMITS, clock=clock)

    async def visit() -> None:
        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            clock.seconds += limits.UPLOAD_SECONDS - 1

        reception = await uploads.receptions.begin("a.mp4", 100, "me", "")
        assert await uploads.go_on(reception, slow(), 0) is None
        assert reception.spent_seconds == limits.UPLOAD_SECONDS - 1
        clock.seconds += 5  # between two requests no time counts
        assert await uploads.go_on(reception, slow(), 1) is None
        with pytest.raises(UsageError, match="too slow") as refused:
            await uploads.go_on(reception, silent(), 2)
        assert not isinstance(refused.value, Interrupted)

    asyncio.run(visit())
    uploads.close()


def test_parts_of_files_are_few_and_do_not_stay(tmp_path: Path) -> None:
    clock = ManualClock()
    uploads = Uploads(tmp_path / "uploads", LIMITS, clock=clock)

    async def visit() -> None:
        for number in range(40):
            clock.seconds += 1
            await uploads.receptions.begin("a.mp4", 1000, f"visitor {number}", f"203.0.113.{number // 20}")
        assert len(files(uploads)) == 2 * limits.MAX_PARTIAL_UPLOADS_PER_ADDRESS
        assert uploads.receptions._receptions.keys() == {path.stem for path in files(uploads)}
        for number in range(40):
            await uploads.receptions.begin("a.mp4", 1000, "other", f"198.51.100.{number}")
        assert len(files(uploads)) == limits.MAX_PARTIAL_UPLOADS

    asyncio.run(visit())
    clock.seconds += limits.PARTIAL_UPLOAD_SECONDS + 1
    uploads.sweep()
    assert not files(uploads)
    uploads.close()
