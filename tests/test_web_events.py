"""No event of the page reads a file of the server: every event, every way to name a file, every kind of visitor."""
from __future__ import annotations

import itertools
import json
import os
import re
import stat
import urllib.parse
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamdream_web.auth import event_validation, middleware
from streamdream_web.auth.allowed_routes import ALLOWED_ROUTES
from streamdream_web.core.response import HttpError
from support.waiting import until
from support.web_client import Running, running
from support.web_visitor import JSON, Page, Visitor, as_json, config

from streamdream.media.opencv import cv2

TOKEN = "a-token-for-the-tests"
EVENTS = Counter({
    ("keep", "upload"): 6, ("<lambda>", "clear"): 1, ("_on_layer_click", "select"): 1, ("_try", "click"): 1,
    ("_start", "click"): 2, ("_on_choice", "input"): 2, ("_status_updates", "tick"): 1,
    (None, "select"): 4})  # the last ones are scripts of the page
"""All events of the page: function, trigger. Whoever adds one looks at what it takes and adds it here."""
OPEN_ROUTES = {
    "GET /", "HEAD /", "GET /config", "GET /theme.css", "GET /favicon.ico", "GET /manifest.json", "GET /robots.txt",
    "GET /assets/{path:path}", "GET /static/{path:path}", "POST /gradio_api/queue/join", "GET /gradio_api/queue/data",
    "POST /gradio_api/cancel", "POST /gradio_api/reset", "GET /gradio_api/heartbeat/{session_hash}",
    "GET /gradio_api/app_id", "GET /healthz", "GET /readyz", "GET /live/facts", "GET /live/clip", "POST /uploads",
    "PATCH /uploads/{token}", "POST /examples/{name}", "DELETE /dreams/{token}",
    *(f"{method} /{path}" for method in ("GET", "HEAD") for path in (
        "results/{token}", "layers/{model}/{number:int}", "layers/{model}/sheet", "channels/{model}",
        "channels/{model}/search", "channels/{model}/{number:int}", "looks/sheet", "looks/mix", "uploads/{token}",
        "uploads/{token}/file", "dreams", "dreams/{token}/original", "dreams/{token}/preview"))}
"""All routes of FastAPI and Gradio that a visitor reaches."""
META = {"_type": "gradio.FileData"}
Shape = Callable[[str], Any]


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": META}


def linked(path: str) -> str:
    """A link to it in a folder that Gradio takes files from."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or "/tmp/gradio")
    folder.mkdir(exist_ok=True)
    link = folder / ("link" + path.replace("/", "-"))
    with suppress(FileExistsError):  # several visitors attack at once
        link.symlink_to(path)
    return str(link)


SHAPES: dict[str, Shape] = {
    "object": file_data,
    "object without meta": lambda path: {"path": path},
    "object with a name": lambda path: {**file_data(path), "orig_name": "a.png", "size": 1, "mime_type": "image/png"},
    "stream": lambda path: {**file_data(path), "is_stream": True},
    "list": lambda path: [file_data(path)],
    "nested": lambda path: {"a": [{"b": {"value": file_data(path)}}]},
    "deep": lambda path: json.loads("[" * 200 + json.dumps(file_data(path)) + "]" * 200),
    "gallery": lambda path: [{"image": file_data(path), "caption": "a"}],
    "editor": lambda path: {"background": file_data(path), "layers": [file_data(path)], "composite": file_data(path)},
    "video": lambda path: {"video": file_data(path), "subtitles": None},
    "update": lambda path: {"__type__": "update", "value": file_data(path)},
    "url http": lambda path: {**file_data(path), "url": "http://127.0.0.1:9/a"},
    "url file": lambda path: {**file_data(path), "url": "file://" + path},
    "path file": lambda path: file_data("file://" + path),
    "path only": lambda path: path,
    "relative": lambda path: file_data("../" * 40 + path.lstrip("/")),
    "dots": lambda path: file_data("/tmp/gradio/../.." + path),
    "link": lambda path: file_data(linked(path)),
    "text": lambda path: json.dumps(file_data(path)),
}


Body = tuple[str, Callable[[dict[str, Any]], bytes]]
PLAIN: Body = (JSON, as_json)
BODIES: dict[str, Body] = {
    "twice": (JSON, lambda event: as_json(event).replace(b'"path"', b'"path": "a", "p\\u0061th"')),
    "data twice": (JSON, lambda event: as_json(event).replace(b'"data"', b'"data": [], "data"')),
    "utf-16": (JSON, lambda event: json.dumps(event).encode("utf-16")),
    "utf-32": (JSON + "; charset=utf-8", lambda event: json.dumps(event).encode("utf-32-le")),
    "byte order mark": (JSON, lambda event: b"\xef\xbb\xbf" + as_json(event)),
    "other json": ("application/vnd.api+json", as_json),
    "no type": ("", as_json),
    "form": ("application/x-www-form-urlencoded", lambda event: urllib.parse.urlencode(event).encode()),
}
"""Other ways to write the same event: content type, writer."""


@pytest.fixture(scope="module")
def closed() -> Iterator[Running]:
    with running(token=TOKEN) as server:
        yield server


def picture() -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    return bytes(cv2().imencode(".png", noise)[1])


def upload(web: Running, **headers: str) -> tuple[str, Path]:
    """A visitor's picture: its token, and where it lies."""
    with closing(Visitor(web, **headers)) as visitor:
        status, told = visitor.ask("POST", "/uploads?name=mine.png", picture())
    token = json.loads(told)["token"]
    assert status == 200
    return token, next((web.app_state.folder / "uploads").glob(f"*{token}*"))


def attack(web: Running, folder: Path, files: Collection[str] = ("text", "process", "upload"),
           shapes: Collection[str] = (*SHAPES, *BODIES), **headers: str) -> list[str]:
    """Each event, with each way to name a file, for each kind of file; those that were answered with its bytes."""
    (folder / "secret.txt").write_bytes(b"a secret of the server's owner")
    paths = {"text": folder / "secret.txt", "process": Path("/proc/self/cmdline"),
             "upload": upload(web, Authorization=f"Bearer {TOKEN}")[1]}

    def attack_event(event: dict[str, Any]) -> list[str]:
        found = []
        with closing(Visitor(web, **headers)) as visitor:
            for (kind, path), name in itertools.product(paths.items(), shapes):
                if kind in files:
                    shape: Shape = SHAPES.get(name, file_data)
                    value = shape(str(path))
                    told = visitor.send({
                        "data": [value] * max(1, len(event["inputs"])), "fn_index": event["id"],
                        "event_data": value if isinstance(value, dict) else dict.fromkeys(
                            ("layer", "model", "look", "layers"), value),
                    }, *BODIES.get(name, PLAIN))
                    found += [f"{event['id']} {name} {kind}"] * (path.read_bytes() in told)
        return found

    with ThreadPoolExecutor(8) as pool:
        return [each for found in pool.map(attack_event, events(web)) for each in found]


def events(web: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = config(web, Authorization=f"Bearer {TOKEN}")["dependencies"]
    return found


# --- no file comes out ------------------------------------------------------------------------------------------------

def test_every_event_is_known(web: Running) -> None:
    """An event that is not in the list was not looked at."""
    names = {number: function.name for number, function in web.app.blocks.fns.items()}
    assert Counter((names[event["id"]], event["targets"][0][1]) for event in events(web)) == EVENTS


def test_no_event_gives_a_file(web: Running, tmp_path: Path) -> None:
    assert attack(web, tmp_path) == []
    assert not [path for path in (web.app_state.folder / "gradio").rglob("*") if not path.is_symlink()]


def test_no_event_gives_a_file_to_who_has_the_token_or_not(closed: Running, tmp_path: Path) -> None:
    assert attack(closed, tmp_path, ("upload",), Authorization=f"Bearer {TOKEN}") == []
    assert attack(closed, tmp_path, ("text",), ("object", "text", "form")) == []


def test_gradio_alone_gives_no_file(web: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our check of events and routes, Gradio's own holds."""
    monkeypatch.setattr(middleware, "is_allowed", lambda scope: True)
    monkeypatch.setattr(event_validation, "API", "/nowhere/")
    assert attack(web, tmp_path, files=("text", "upload"), shapes=("object",)) == []


def test_files_that_gradio_writes_are_private_and_go_with_the_server() -> None:
    with running() as web:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.parent == web.app_state.folder
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]
        assert all(str(folder) == block.GRADIO_CACHE for block in web.app.blocks.blocks.values())
    assert not folder.exists()


# --- what an event may be ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("body", "status"), [
    ('{"data": [], "fn_index": 1, "meta": 1}', 403),
    ('{"data": [{"p\\u0061th": "a"}], "fn_index": 1}', 403),
    ('{"data": [], "fn_index": 1, "event_data": {"value": {"url": "http://a"}}}', 403),
    ('{"data": [" [{\\"path\\": 1}]"], "fn_index": 1}', 403),
    ('{"data": [" FILE:///etc/passwd"], "fn_index": 1}', 403),
    ('{"data": [{"a": 1}], "fn_index": 1}', 400),
    ('{"data": [[["a"]]], "fn_index": 1}', 400),
    ('{"data": [], "fn_index": 1, "event_data": {"a": {}}}', 400),
    ('{"data": [], "data": [], "fn_index": 1}', 400),
    ('{"data": [NaN], "fn_index": 1}', 400),
    ('{"data": [1e999], "fn_index": 1}', 400),
    ('{"data": [' + "9" * 400 + '], "fn_index": 1}', 400),
    ('{"data": ["\\ud800"], "fn_index": 1}', 400),
    ('{"data": [], "fn_index": 1.0}', 400),
    ('{"data": [], "fn_index": true}', 400),
    ('{"data": [], "fn_index": 1, "session_hash": "../a"}', 400),
    ('{"data": "a", "fn_index": 1}', 400),
    ('{"data": ' + "[" * 100_000 + "]" * 100_000 + "}", 400),
    ('{"data": ["' + "\\u005b" * 100_000 + '"], "fn_index": 1}', 400),
    ("[]", 400), ("", 400), ("\ufeff{}", 400),
    ('{"data": [], "fn_index": -1}', 404), ('{"data": [], "fn_index": 999}', 404), ('{"data": []}', 404),
])
def test_an_event_that_no_page_sends_is_refused(body: str, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        event_validation.read_event(body.encode(), {1})
    assert refused.value.status == status and "\n" not in refused.value.text


def test_what_the_page_sends_passes_and_nothing_else_is_handed_on() -> None:
    event = {"data": [None, '{"token": "a", "mask": "data:image/png;base64,AAAA"}', 0.5, True, "{no json", ["a", 1]],
             "event_data": {"layer": "mixed3"}, "fn_index": 1, "trigger_id": 3, "session_hash": "g8xpf8uwsp"}
    assert event_validation.read_event(as_json({**event, "batched": True, "simple_format": True}), {1}) == event


@pytest.mark.parametrize(("body", "content_type", "status"), [
    (b"{}", "", 400), (b"{}", "text/plain", 400), (b'{"fn_index": 0}', "multipart/form-data; boundary=a", 400),
    (b'{"data": ["' + b"a" * 2_000_000 + b'"]}', JSON, 413), (b'{"data": [], "fn_index": 999}', JSON, 404)])
def test_a_refused_event_is_answered_with_its_reason(web: Running, body: bytes, content_type: str, status: int) -> None:
    for path in ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"):
        with closing(Visitor(web)) as visitor:
            assert visitor.ask("POST", path, body, content_type)[0] == status


# --- routes -----------------------------------------------------------------------------------------------------------

def all_routes(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted apps and included routers, too."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(inner, "routes"):
            yield from all_routes(inner)
        for method in getattr(route, "methods", None) or ():
            yield method, route.path


def test_every_other_route_is_not_there(web: Running) -> None:
    app: Any = web.app.asgi
    while not hasattr(app, "routes"):
        app = app._app
    routes = set(all_routes(app))
    assert len(routes) > 80 and {f"{method} {path}" for method, path in routes} >= OPEN_ROUTES
    with closing(Visitor(web)) as visitor:
        for method, path in sorted(routes):
            if f"{method} {path}" not in OPEN_ROUTES:
                asked = re.sub(r"\{[^}]*\}", "1", path)
                assert visitor.ask(method, asked, b"{}", JSON)[0] == 404, (method, path)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "GET", "POST"])
def test_no_route_takes_another_method(web: Running, method: str) -> None:
    with closing(Visitor(web)) as visitor:
        for path, methods in ALLOWED_ROUTES.items():
            if method not in methods and path != "/live":
                assert visitor.ask(method, path)[0] == 404, path


# --- the page's own events work ---------------------------------------------------------------------------------------

def test_a_picture_is_dreamed_through_the_events(web: Running) -> None:
    page = Page(web)
    with closing(page.visitor):
        kept = page.event("picture-drop", "upload")
        page.put("picture-drop", json.dumps({"token": upload(web)[0]}))
        assert '"success":true' in page.send(kept)
        start = page.event("picture-start", "click")
        page.set({"steps": 1, "octaves": 1}, start)
        told = page.send(start)
        token = re.findall(r'data-dream=\\"([\w-]+)', told)[-1]
        until(lambda: page.visitor.ask("GET", f"/results/{token}")[0] == 200)
        assert page.visitor.ask("GET", f"/results/{token}")[1].startswith(b"\x89PNG")
