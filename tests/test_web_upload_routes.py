"""The routes of uploads: files in pieces, files found again, examples; and nothing of it for another visitor."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.auth import visitor_cookie
from streamdream_web.jobs import examples
from support.web_client import Running, ask
from support.web_uploads import clip


class Browser:
    """A visitor with a cookie; each request is a connection of its own, as inspections take longer than one is kept."""

    def __init__(self, web: Running) -> None:
        self._web = web
        self.headers: dict[str, Any] = {"Cookie": f"{visitor_cookie.COOKIE}={visitor_cookie.new_value()}"}

    def ask(self, method: str, path: str, data: bytes | None = None, **headers: Any) -> tuple[int, bytes]:
        status, _, body = ask(self._web, path, data, method, **self.headers, **headers)
        return status, body

    def patch(self, token: str, offset: int, data: bytes) -> tuple[int, dict[str, Any]]:
        return told(self.ask("PATCH", f"/uploads/{token}", data, Upload_Offset=str(offset)))


@pytest.fixture()
def mine(web: Running) -> Browser:
    return Browser(web)


@pytest.fixture()
def hers(web: Running) -> Browser:
    return Browser(web)


def told(answer: tuple[int, bytes]) -> tuple[int, dict[str, Any]]:
    return answer[0], json.loads(answer[1])


def test_a_file_comes_in_pieces_and_is_found_again(mine: Browser, hers: Browser, tmp_path: Path) -> None:
    data = clip(tmp_path)
    status, begun = told(mine.ask("POST", f"/uploads?name=a.mp4&size={len(data)}", b""))
    token = begun["token"]
    assert status == 201 and begun["offset"] == 0
    assert mine.patch(token, 0, data[:500]) == (200, {**begun, "offset": 500})
    assert hers.patch(token, 500, data[500:])[0] == 404
    assert mine.patch(token, 0, data)[:1] == (409,)
    assert told(mine.ask("GET", f"/uploads/{token}")) == (200, {**begun, "offset": 500})
    status, facts = mine.patch(token, 500, data[500:])
    assert status == 200 and facts["token"] == token and facts["video"] and facts["name"] == "a.mp4"
    assert mine.patch(token, 500, data[500:]) == (200, facts)  # as its answer may be lost
    assert told(mine.ask("GET", f"/uploads/{token}")) == (200, facts)
    assert mine.ask("GET", f"/uploads/{token}/file") == (200, data)
    for path in (f"/uploads/{token}", f"/uploads/{token}/file"):
        assert hers.ask("GET", path)[0] == 404


def test_a_file_of_a_visitor_runs_nothing_and_is_played_in_parts(web: Running, mine: Browser) -> None:
    _, facts = told(mine.ask("POST", "/examples/meadow", b""))
    status, headers, body = ask(web, f"/uploads/{facts['token']}/file", Range="bytes=10-19", **mine.headers)
    example = examples.find("meadow")
    assert example is not None and status == 206 and body == example.path.read_bytes()[10:20]
    assert headers["Content-Type"] == "video/mp4" and headers["Content-Security-Policy"] == "sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(("name", "size", "data", "words"), [
    ("a.mp4", 4, b"evil", "not a video"), ("a.exe", 4, b"", "not accepted"), ("a.mp4", 10**9, b"", "too large"),
    ("a.mp4", 0, b"", "empty"), ("a.mp4", 4, b"evil and more", "larger than was said")])
def test_a_file_in_pieces_is_refused_as_a_whole_one_is(mine: Browser, name: str, size: int, data: bytes, words: str
                                                       ) -> None:
    status, answer = told(mine.ask("POST", f"/uploads?name={name}&size={size}", b""))
    if data:
        token = answer["token"]
        status, answer = mine.patch(token, 0, data)
        assert mine.ask("GET", f"/uploads/{token}")[0] == 404
    assert status == 400 and words in answer["error"]


def test_every_example_becomes_the_file_of_a_visitor_once(mine: Browser, hers: Browser) -> None:
    for example in examples.everything():
        status, facts = told(mine.ask("POST", f"/examples/{example.name}", b""))
        assert status == 200 and facts["name"] == example.file_name and facts["video"] == example.is_video
        assert facts["width"] > 400 and mine.ask("GET", f"/uploads/{facts['token']}/file")[1][:64] in (
            example.path.read_bytes()[:64])
        assert told(mine.ask("POST", f"/examples/{example.name}", b"")) == (200, facts)
        assert hers.ask("GET", f"/uploads/{facts['token']}")[0] == 404
    assert any(example.is_video and example.facts.sound for example in examples.everything())
    assert mine.ask("POST", "/examples/..%2f..%2fstrings.js", b"")[0] == 404


def test_examples_are_small() -> None:
    assert sum(path.stat().st_size for path in examples.FOLDER.iterdir()) <= 2_500_000
