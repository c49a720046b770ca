"""The browser app against what nobody should send: for some seconds, from a fixed seed. What failed is printed.

STREAMDREAM_FUZZ_SECONDS and STREAMDREAM_FUZZ_SEED run it longer, and elsewhere.
"""
from __future__ import annotations

import io
import json
import logging
import os
import random
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from streamdream_web.auth import passwords
from streamdream_web.auth.allowed_routes import ALLOWED_ROUTES
from streamdream_web.core import limits
from streamdream_web.live.browser_io import HEADER
from streamdream_web.server import logs
from support.waiting import until
from support.web_client import Client, Running, ask, running
from websockets.exceptions import ConnectionClosed, InvalidStatus

TOKEN = "a-token-for-the-tests"
SECONDS = float(os.environ.get("STREAMDREAM_FUZZ_SECONDS", "3"))
"""Of each of the two tests."""
MIN_CASES = 20
"""However busy the machine is."""
SEED = int(os.environ.get("STREAMDREAM_FUZZ_SEED", "20"))
ROUTES = (*ALLOWED_ROUTES, "/login", "/logout", "/layers/inception_v3/1", "/streamdream/live.js",
          "/channels/inception_v3/1", "/channels/inception_v3/search", "/looks/mix", "/looks/sheet",
          "/gradio_api/file=", "/gradio_api/stream/", "/nothing")
POSTED = ("/login", "/logout", *(path for path, methods in ALLOWED_ROUTES.items() if "POST" in methods))
TEXTS = ("", "x", "0", "-1", "1", "²", "9" * 20, "9" * 5000, "1e400", "NaN", "[", "[::1", "[::1]", "::1", "null", "..",
         "../../etc/passwd", "/", "\\", "//evil.example", "http://[", "http://127.0.0.1", "http://evil.example:99999",
         "%", "%00", "%0d%0aX: y", "%ff%fe", "%ed%a0%80", "\t", "\xff\xfe", "é", "a" * 300, "a" * 20_000, ";", ",", "=",
         '"\\351"', '"\\262.x"', "bytes=0-1", "bytes=9999999999999999999-", "bytes=-", "bytes=a-b,c", "gzip;q=x",
         "Basic", "Basic !!!", "Basic " + b64encode(b"anna:wrong").decode(), "Basic " + b64encode(b"\xff\xfe").decode(),
         "Bearer", "Bearer x", "Mon, 01 Jan 99999999 00:00:00 GMT", "text/html", "application/json",
         "multipart/form-data", "multipart/form-data; boundary=", "application/json; charset=utf-16",
         "application/x-www-form-urlencoded")
HEADERS = ("Host", "Origin", "Cookie", "Authorization", "Content-Type", "Accept", "Accept-Encoding", "Accept-Language",
           "Range", "If-Range", "If-None-Match", "If-Modified-Since", "X-Forwarded-For", "X-Forwarded-Host",
           "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded", "X-Gradio-Server", "Sec-Fetch-Site", "Expect",
           "X-Gradio-User", "Referer", "Upgrade", "Transfer-Encoding", "X-HTTP-Method-Override")
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1, 999, 10**20, 10**400, 1e308, float("inf"), float("nan"), "", "x", "\0",
                           "\ud800", "²", "a" * 9000, [], {}, [[]], [None] * 50, {"": {}}, {"path": "x"})
FIELDS = ("data", "fn_index", "session_hash", "event_id", "trigger_id", "event_data", "api_name", "simple_format",
          "batched", "request", "path", "components")


SETTINGS = ("layers", "steps", "octaves", "mask", "guide", "keep", "jitter", "model", "strength", "x")


@dataclass
class Fuzzed:
    web: Running
    log: io.StringIO
    read: int = 0
    """So much of it."""


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    """A server, and its log as an operator reads it."""
    loggers = [logging.getLogger(name) for name in logs.LOGGERS]
    kept = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    text = io.StringIO()
    logs.configure_logging("text")
    for logger in loggers:
        handler = logger.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LOGIN_PAUSE_SECONDS", 0.0)
        patch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.3)  # of a body that is shorter than its length
        with running(token=TOKEN, auth="anna:" + passwords.hash_password("right words")) as web:
            until(lambda: ask(web, "/readyz", Authorization=f"Bearer {TOKEN}")[0] == 200, 60)  # 503 before
            yield Fuzzed(web, text)
    for logger, (handlers, propagate, level) in zip(loggers, kept, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
        logger.removeFilter(logs.is_reported)


def some(chance: random.Random, depth: int = 0) -> Any:
    """A value for JSON."""
    if depth < 4 and chance.random() < 0.3:
        return [some(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 4 and chance.random() < 0.3:
        return {chance.choice((*FIELDS, *TEXTS)): some(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(VALUES)


def body(chance: random.Random) -> bytes:
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return b"[" * chance.choice((10, 1000, 200_000))
    if kind == 2:
        number = chance.choice((b"1e400", b"-0", b"9" * 5000, b"0x1"))
        return b'{"fn_index":' + number + b',"session_hash":"x","data":[]}'
    if kind == 3:
        names = ("user", "password", "x")
        return "&".join(f"{chance.choice(names)}={chance.choice(TEXTS)}" for _ in range(5)).encode()
    values = {name: some(chance) for name in chance.sample(FIELDS, chance.randrange(6))}
    values |= {"session_hash": chance.choice(("x", *VALUES)), "fn_index": chance.randrange(-2, 60)}
    data = json.dumps(values).encode()
    return data if kind < 7 else data[:chance.randrange(len(data))]


def request(chance: random.Random) -> bytes:
    """One that may be no HTTP; most of it is right, so that it comes far."""
    path = chance.choice(ROUTES)
    method = chance.choice(("GET", "GET", "GET", "HEAD", "OPTIONS", "PUT", "TRACE", "PRI", "POST"))
    headers = {"Host": "127.0.0.1", "Connection": "close"}
    sent = b""
    if path in POSTED and chance.random() < 0.8:
        method, sent = "POST", body(chance)
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(sent))
    if chance.random() < 0.4:
        path += chance.choice(TEXTS)
    if chance.random() < 0.4:
        path += "?" + "&".join(f"{chance.choice(('token', '__theme', 'session_hash', 'name', 'save', 'all'))}="
                               f"{chance.choice((TOKEN, *TEXTS))}" for _ in range(2))
    if chance.random() < 0.85:
        headers["Authorization"] = f"Bearer {TOKEN}"
    for name in chance.sample(HEADERS, chance.choice((0, 0, 1, 2, 4))):
        headers[name] = chance.choice(TEXTS)
    if chance.random() < 0.2:
        headers["Cookie"] = f"streamdream={chance.choice(TEXTS)}; {chance.choice(TEXTS)}"
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + sent


def exchange(web: Running, sent: bytes) -> bytes:
    """The head of the response, for which it waits; empty when there is none."""
    head = b""
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection, suppress(OSError):
        connection.sendall(sent)
        while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
            head += part
    return head.partition(b"\r\n\r\n")[0]


def run(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str], try_once: Callable[[random.Random], str]) -> None:
    """``try_once`` returns what was wrong. Each case has a seed of its own, with which it can be run again alone."""
    end, case = time.monotonic() + SECONDS, 0
    while case < MIN_CASES or time.monotonic() < end:
        case += 1
        seed = SEED * 1_000_000 + case
        wrong = try_once(random.Random(seed))
        complaint = complaints(fuzzed, capfd)
        assert not wrong, f"case {seed}: {wrong}"
        assert not complaint, f"case {seed}, or one just before: {complaint}"
    assert ask(fuzzed.web, "/healthz")[0] == 200
    time.sleep(0.2)
    assert not complaints(fuzzed, capfd)


def complaints(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str] | None = None) -> str:
    """What was logged or printed since the last time, if there is an error in it."""
    told = fuzzed.log.getvalue()[fuzzed.read:] + ("".join(capfd.readouterr()) if capfd else "")
    fuzzed.read = len(fuzzed.log.getvalue())
    return told[-4000:] if any(word in told for word in ("Traceback", "failed: ")) else ""


def lines(fuzzed: Fuzzed) -> list[str]:
    return [line for line in fuzzed.log.getvalue()[fuzzed.read:].splitlines() if line]


JOIN = '{{"data":[],"fn_index":{},"session_hash":"x"}}'
KNOWN = [
    ("GET", "/healthz", {"Host": "["}, "", 400), ("GET", "/", {"Host": "[::1"}, "", 400),
    ("GET", "/", {"Host": "localhost:²"}, "", 400), ("POST", "/gradio_api/cancel", {"Origin": "http://["}, "{}", 400),
    ("GET", "/", {"Authorization": "", "Cookie": 'streamdream="9999999999.\\351"'}, "", 401),
    ("GET", "/", {"Authorization": "", "Cookie": 'streamdream="\\262.x"'}, "", 401),
    ("GET", "/", {"Authorization": "", "Cookie": "streamdream=²"}, "", 401),
    ("GET", f"/%0d%0aX?token={TOKEN}", {}, "", 404), ("GET", f"/layers/inception_v3/{'9' * 5000}", {}, "", 404),
    ("GET", "/layers/inception_v3/%C2%B2", {}, "", 404), ("GET", f"/svelte/{'a' * 5000}", {}, "", 404),
    ("GET", "/gradio_api/heartbeat/%00", {}, "", 404), ("POST", "/gradio_api/queue/join", {}, JOIN.format(-1), 404),
    ("POST", "/gradio_api/queue/join", {}, JOIN.format(999), 404),
    ("POST", "/gradio_api/queue/join", {}, JOIN.format("9" * 5000), 400),
    ("POST", "/gradio_api/queue/join", {}, JOIN.format("1e400"), 400),
    ("POST", "/gradio_api/queue/join", {}, "[" * 100_000, 400)]


@pytest.mark.parametrize(("method", "path", "headers", "sent", "status"), KNOWN)
def test_malformed_requests_are_errors_of_the_client(fuzzed: Fuzzed, method: str, path: str,
                                                              headers: dict[str, str], sent: str, status: int) -> None:
    """With the security headers, and one line in the log."""
    complaints(fuzzed)
    named = {"Host": "127.0.0.1", "Connection": "close", "Authorization": f"Bearer {TOKEN}",
             "Content-Type": "application/json", "Content-Length": str(len(sent)), **headers}
    head = exchange(fuzzed.web, "\r\n".join([
        f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]).encode("latin-1")
        + f"\r\n\r\n{sent}".encode())
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and b"content-security-policy" in head
    until(lambda: lines(fuzzed))
    assert len(lines(fuzzed)) == 1 and f"status {status}" in lines(fuzzed)[0]


@pytest.mark.parametrize("values", [{"steps": 10**400}, {"octaves": "9" * 5000}, {"strength": float("nan")},
                                    {"layers": "\ud800"}, {"x": "\0"}])
def test_a_setting_that_is_no_number_is_no_error_of_the_server(fuzzed: Fuzzed, values: dict[str, Any]) -> None:
    complaints(fuzzed)
    with Client(fuzzed.web, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        client.welcome()
        client.say(type="settings", values=values)
        client.socket.send("{}")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.hear()
    assert closed.value.rcvd and closed.value.rcvd.code == 1008 and not complaints(fuzzed)


def test_no_request_is_an_error_of_the_server(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str]) -> None:
    def try_once(chance: random.Random) -> str:
        sent = request(chance)
        head = exchange(fuzzed.web, sent)
        status = head.split(b" ")[1:2]
        safe = b"content-security-policy:" in head.lower() and b"x-content-type-options: nosniff" in head.lower()
        wrong = not status or status[0] >= b"500" or not safe
        return f"{sent[:1500]!r} -> {head[:300]!r}" if wrong else ""

    run(fuzzed, capfd, try_once)


def word(chance: random.Random) -> str | bytes:
    """A message up the live socket."""
    if chance.random() < 0.2:
        return bytes(HEADER.pack(chance.randrange(2**32), 0)[:chance.randrange(HEADER.size + 1)]) + chance.randbytes(40)
    kind = chance.choice(("hello", "settings", "settings", "settings", "freeze", "reset", "bye", "what", some(chance)))
    said: dict[str, Any] = {"type": kind, chance.choice(("values", "on", "session", "x")): some(chance)}
    if kind == "settings" and chance.random() < 0.7:
        said["values"] = {name: some(chance) for name in chance.sample(SETTINGS, chance.randrange(4))}
    text = json.dumps(said)
    return text[:chance.randrange(len(text))] if chance.random() < 0.1 else text


def test_no_socket_message_is_an_error_of_the_server(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str]) -> None:
    def try_once(chance: random.Random) -> str:
        said: list[str | bytes] = []
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        try:
            with Client(fuzzed.web, additional_headers=bearer) as client:
                client.welcome()
                for _ in range(chance.randrange(1, 8)):
                    said.append(word(chance))
                    client.socket.send(said[-1])
                client.socket.send("{}")  # ends it in any case
                while True:
                    client.hear()
        except (ConnectionClosed, InvalidStatus) as error:
            closed = getattr(error, "rcvd", None)
            return "" if closed and closed.code in (1000, 1008, 1009, 4000) else f"{said!r} -> {error!r}"
        except TimeoutError:
            return f"{said!r} -> nothing came any more"

    run(fuzzed, capfd, try_once)


def test_a_stream_of_an_unknown_session_is_no_error(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str]) -> None:
    complaints(fuzzed, capfd)
    for number in range(5):
        head = exchange(fuzzed.web, f"GET /gradio_api/queue/data?session_hash=unknown{number} HTTP/1.1\r\nHost: x\r\n"
                                    f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert b" 200 " in head
    until(lambda: len(lines(fuzzed)) >= 5)
    time.sleep(0.2)
    assert len(lines(fuzzed)) == 5 and all("broken off" in line for line in lines(fuzzed))
    assert not capfd.readouterr().err


def test_a_refused_socket_is_one_line(fuzzed: Fuzzed, capfd: pytest.CaptureFixture[str]) -> None:
    complaints(fuzzed, capfd)
    with pytest.raises(InvalidStatus):
        Client(fuzzed.web)
    time.sleep(0.2)
    assert len(lines(fuzzed)) == 1 and "log in first" in lines(fuzzed)[0]
