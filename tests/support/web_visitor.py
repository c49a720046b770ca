"""A visitor of the page, without a browser: its routes, its events, its uploads."""
from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Callable
from contextlib import closing
from typing import Any

from support.web_client import Running


def as_json(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


JSON = "application/json"


class Visitor:
    """A client of the page's routes. ``headers`` go with every request."""

    def __init__(self, web: Running, **headers: str) -> None:
        self.web, self.headers = web, headers
        self._connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        self._sessions = 0

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> tuple[int, bytes]:
        kind = {"Content-Type": content_type} if content_type else {}
        try:
            self._connection.request(method, path, body, {**self.headers, **kind})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def listen(self, session: str) -> bytes:
        """What its events answer, to the end of the stream, or until nothing comes."""
        told = b""
        self._connection.request("GET", f"/gradio_api/queue/data?session_hash={session}", headers=self.headers)
        answer = self._connection.getresponse()
        while line := answer.readline():
            told += line
            if b'"msg":"heartbeat"' in line:  # an event that streams: no end of its own
                self._connection.close()
                break
        return told

    def send(self, event: dict[str, Any], content_type: str = JSON, write: Callable[[Any], bytes] = as_json) -> bytes:
        """All that is answered to that event, with whatever file it names."""
        self._sessions += 1
        session = f"attack{self._sessions}x{id(self)}"
        event = {**event, "session_hash": session, "trigger_id": None}
        status, told = self.ask("POST", "/gradio_api/queue/join", write(event), content_type)
        if status == 200:
            told += self.listen(session)
        for path in set(re.findall(r"/[^\s\"'\\<>]+/[^\s\"'\\<>]+", told.decode("utf-8", "replace"))):
            plain = path.partition("/gradio_api/file=")[2] or path
            for route in ("file=", "file/", "stream/"):
                told += self.ask("GET", f"/gradio_api/{route}{urllib.parse.quote(plain)}")[1]
        return told

    def close(self) -> None:
        self._connection.close()

    def upload(self, name: str, data: bytes) -> tuple[int, dict[str, Any]]:
        """Status, and the answer: a token and facts, or an error."""
        status, told = self.ask("POST", f"/uploads?name={urllib.parse.quote(name)}", data)
        answer: dict[str, Any] = json.loads(told)
        return status, answer


def config(web: Running, **headers: str) -> dict[str, Any]:
    """The page's components and events."""
    with closing(Visitor(web, **headers)) as visitor:
        whole: dict[str, Any] = json.loads(visitor.ask("GET", "/config")[1])
    return whole


class Page:
    """What the page in a browser sends, from its components' values."""

    def __init__(self, web: Running) -> None:
        self.visitor, self._session = Visitor(web), "apage"
        whole = config(web)
        self._events = whole["dependencies"]
        self.values = {part["id"]: part["props"].get("value") for part in whole["components"]}
        self._panels = {part["id"] for part in whole["components"] if "facts" in part["props"].get("props", {})}
        self._ids = {part["props"].get("elem_id"): part["id"] for part in whole["components"]}

    def event(self, elem_id: str, trigger: str) -> dict[str, Any]:
        return next(event for event in self._events if [self._ids[elem_id], trigger] in event["targets"])

    def after(self, event: dict[str, Any]) -> dict[str, Any]:
        return next(other for other in self._events if other["trigger_after"] == event["id"])

    def set(self, values: dict[str, Any], event: dict[str, Any]) -> None:
        """Settings by their fields, in the panel that the event takes."""
        for number in self._panels & {*event["inputs"]}:
            self.values[number] = json.dumps(json.loads(self.values[number] or "{}") | values)

    def put(self, elem_id: str, value: Any) -> None:
        self.values[self._ids[elem_id]] = value

    def send(self, event: dict[str, Any]) -> str:
        data = [self.values[number] for number in event["inputs"]]
        status, told = self.visitor.ask("POST", "/gradio_api/queue/join", as_json({
            "data": data, "fn_index": event["id"], "session_hash": self._session, "trigger_id": None,
            "event_data": None}), JSON)
        assert status == 200, told
        return self.visitor.listen(self._session).decode()
