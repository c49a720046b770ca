"""Checks every event before Gradio reads it: an event holds plain values, and names no file.

Gradio takes a file as an object with its path on the server, ``{"path": ..., "meta": {"_type": "gradio.FileData"}}``,
anywhere in an event, copies that file and answers with the copy's URL. No visitor of this app gets a file that way (see
``jobs/uploads.py``), so a file that an event names is never the visitor's.
"""
from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any

from ..core import limits
from ..core.response import App, HttpError, Message, Receive, Scope, Send

API = "/gradio_api/"
FIELDS = ("data", "event_data", "fn_index", "trigger_id", "session_hash", "event_id")
"""Fields of an event; all others are removed."""
FILE_KEYS = frozenset(("path", "url", "meta", "_type"))
SURROGATE = re.compile("[\ud800-\udfff]")
IDENTIFIER = re.compile(r"[\w-]{1,64}", re.ASCII)
MAX_NUMBER = 2**53
"""The largest integer that a browser sends exactly."""


class EventValidation:
    """An ASGI app around Gradio's. ``event_ids`` are the numbers of all events of the page."""

    def __init__(self, app: App, event_ids: Collection[int]) -> None:
        self._app, self._event_ids = app, event_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HttpError for a body that is no event of this page."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(API):
            scope, receive = await self._validated(scope, receive)
        await self._app(scope, receive, send)

    async def _validated(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """Return both with the checked event serialized again, so that no other JSON parser can read it differently."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise HttpError(400, "an event must be application/json")
        body = json.dumps(read_event(await _read_body(receive), self._event_ids)).encode()
        headers_kept = [(name, value) for name, value in scope["headers"]
                if name.lower() not in (b"content-type", b"content-length", b"transfer-encoding")]
        read = False

        async def receive_event() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        return {**scope, "headers": [*headers_kept, (b"content-type", b"application/json"),
                                     (b"content-length", str(len(body)).encode())]}, receive_event


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HttpError(400, "the body is incomplete")
        body += message.get("body", b"")
        if len(body) > limits.MAX_EVENT_BYTES:
            raise HttpError(413, "this event is too large")
        if not message.get("more_body"):
            return bytes(body)


def read_event(body: bytes, event_ids: Collection[int]) -> dict[str, Any]:
    """Return the event in ``body``, which is JSON in UTF-8. Raises HttpError."""
    try:
        event = _parse(body.decode())
    except ValueError:
        raise HttpError(400, "the body must be JSON in UTF-8") from None
    if not isinstance(event, dict) or not _has_shape(event):
        raise HttpError(400, "invalid event")
    if ("data" in event or "fn_index" in event) and event.get("fn_index") not in event_ids:
        raise HttpError(404, "unknown event")
    return {name: event[name] for name in FIELDS if name in event}


def _parse(text: str) -> Any:
    """Parse JSON. Raises ValueError, or HttpError for an object that names a file or has a key twice."""
    if sum(map(text.count, "[{,")) > limits.MAX_EVENT_ITEMS:
        raise HttpError(400, "invalid event")
    try:
        return json.loads(text, object_pairs_hook=_build_object)
    except RecursionError:
        raise HttpError(400, "invalid event") from None


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if not FILE_KEYS.isdisjoint(built):
        raise HttpError(403, "an event must not name a file")
    if len(built) < len(pairs):
        raise HttpError(400, "a key is repeated")
    return built


def _has_shape(event: dict[str, Any]) -> bool:
    """Return whether it has the types that the page sends, with no object but ``event_data``. Raises HttpError."""
    data, event_data = event.get("data", []), event.get("event_data") or {}
    return (isinstance(data, list) and isinstance(event_data, dict)
            and all(map(_is_plain, [*data, *event_data.values()]))
            and all(type(event.get(name)) in (int, type(None)) for name in ("fn_index", "trigger_id"))
            and all(_is_identifier(event.get(name)) for name in ("session_hash", "event_id")))


def _is_identifier(value: Any) -> bool:
    return value is None or (isinstance(value, str) and IDENTIFIER.fullmatch(value) is not None)


def _is_plain(value: Any) -> bool:
    """Return whether it is a scalar, or a list of scalars (of a multiple choice). Raises HttpError."""
    return all(map(_is_scalar, value)) if isinstance(value, list) else _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    """Raise HttpError for a text that names a file."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):  # a bool is one, too
        return abs(value) <= MAX_NUMBER
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _is_text(text: str) -> bool:
    """Return whether it is valid Unicode. Raises HttpError for a file's URL, and for JSON text that names a file."""
    start = text.lstrip()[:5].lower()
    if start == "file:":
        raise HttpError(403, "an event must not name a file")
    try:
        if start.startswith(("{", "[")):
            _parse(text)
    except ValueError:
        pass  # not JSON
    return SURROGATE.search(text) is None
