"""Protection of the browser app: logins, origins, limits, malformed and slow requests."""
from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.auth import passwords
from streamdream_web.core import limits
from streamdream_web.live import browser_io
from streamdream_web.server import logs, startup
from support.commands import fails, here
from support.waiting import until
from support.web_client import Client, Running, ask, certificate, refusal, running
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamdream import backends
from streamdream.errors import SourceError, UsageError
from streamdream.media.opencv import cv2
from streamdream.settings import WebSettings

TOKEN = "a-token-for-the-tests"
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(connections_per_address=40) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def closed() -> Iterator[Running]:
    with running(token=TOKEN, auth="anna:" + passwords.hash_password(PASSWORD)) as running_server:
        yield running_server


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is of that size."""
    data: bytes = cv2().imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4:]


# --- from where -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_socket_of_another_origin_is_refused(web: Running, origin: str | None) -> None:
    assert refusal(web, origin) == 403


def test_foreign_names_and_pages_are_refused(web: Running) -> None:
    assert ask(web, "/", Host="evil.example")[0] == 403  # a name that somebody has pointed at this machine
    assert ask(web, "/healthz", Host=f"localhost:{web.port}")[0] == 200
    assert ask(web, "/gradio_api/queue/join", b"{}", Origin="https://evil.example")[0] == 403
    assert ask(web, "/config", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403


@pytest.mark.parametrize("path", ["/monitoring", "/gradio_api/info", "/gradio_api/openapi.json", "/docs", "/redoc",
                                  "/gradio_api/upload", "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/runs",
                                  "/openapi.json", "/gradio_api/call/x"])
def test_a_route_of_gradio_that_is_not_used_answers_404(web: Running, path: str) -> None:
    for body in (None, b"x"):
        assert ask(web, path, body)[0] == 404


def test_security_headers_are_sent_and_analytics_are_off(web: Running) -> None:
    status, headers, body = ask(web, "/")
    assert status == 200 and headers["x-content-type-options"] == "nosniff" and "server" not in headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
    config = json.loads(ask(web, "/config")[2])
    assert config["analytics_enabled"] is False and config["run_history"] is False and not config["footer_links"]
    assert b"fonts.googleapis" not in body


def test_the_preview_of_a_link_names_this_app_and_not_gradio(web: Running) -> None:
    tags = re.findall(r'<meta\s+(?:property|name)="(?:og|twitter):(\w+)"\s+content="(.*?)"', ask(web, "/")[2].decode())
    assert dict(tags)["title"] == "streamdream" and dict(tags)["description"]
    assert len(tags) == len(dict(tags)) and "gradio" not in str(tags).lower()


@pytest.mark.parametrize("path", ["/streamdream/../server.py", "/streamdream/%2e%2e/server.py", "/file=/etc/passwd",
                                  "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd",
                                  "/streamdream/..%2f..%2fpyproject.toml", "/svelte/../../../etc/passwd",
                                  "/static/..%2f..%2f..%2fetc%2fpasswd", "/assets/%2e%2e/index.html"])
def test_no_path_leads_to_a_file(web: Running, path: str) -> None:
    status, _, body = ask(web, path)
    assert status in (403, 404, 405) and b"root:" not in body


# --- who --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/", "/config", "/live/facts", "/streamdream/live.js", "/gradio_api/file=/etc/passwd",
                                  "/gradio_api/queue/data?session_hash=x", "/theme.css", "/uploads", "/results/x",
                                  "/layers/inception_v3/1", "/favicon.ico", "/?token=wrong", "/healthz/x"])
def test_every_route_needs_a_login(closed: Running, path: str) -> None:
    assert ask(closed, path)[0] == 401
    assert ask(closed, path, b"{}")[0] == 401


def test_the_socket_needs_a_login(closed: Running) -> None:
    assert refusal(closed, closed.url) == 401


def test_healthz_answers_without_a_token(closed: Running) -> None:
    assert json.loads(ask(closed, "/healthz")[2])["status"] == "ok"


def test_the_link_with_the_token_logs_in(closed: Running) -> None:
    status, headers, _ = ask(closed, f"/?token={TOKEN}")
    assert status == 303 and headers["location"] == "/"  # the token does not stay in the address
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and TOKEN not in cookie
    mine = cookie.split(";")[0]
    assert ask(closed, "/config", Cookie=mine)[0] == 200
    with Client(closed, additional_headers={"Cookie": mine}) as client:
        client.welcome()
    digest, began, number, sign = mine.removeprefix("streamdream=").split(".")
    for forged in (f"{digest}.{began}.{number}.{sign[:-1]}x", f"{digest}.{int(began) + 9}.{number}.{sign}",
                   f"{digest}.{began}.{number[::-1]}.{sign}", "0" * 16 + f".{began}.{number}.{sign}", "9" * 30, "x"):
        assert ask(closed, "/config", Cookie=f"streamdream={forged}")[0] == 401


def test_a_password_logs_in(closed: Running) -> None:
    form = f"user=anna&password={PASSWORD.replace(' ', '+')}".encode()
    status, headers, _ = ask(closed, "/login", form)
    assert status == 303 and "streamdream=" in headers["set-cookie"]
    status, headers, body = ask(closed, "/login", b"user=anna&password=wrong")
    assert status == 401 and b"Wrong" in body and "set-cookie" not in headers
    assert ask(closed, "/config", Authorization="Bearer " + TOKEN)[0] == 200
    assert ask(closed, "/config", Authorization="Basic !!!")[0] == 401
    assert b"<form" in ask(closed, "/", Accept="text/html")[2]


def test_passwords_are_kept_as_scrypt() -> None:
    kept = passwords.hash_password("secret words")
    assert "secret" not in kept and kept != passwords.hash_password("secret words")
    assert passwords.verify_password("secret words", kept) and not passwords.verify_password("secret word", kept)
    for broken in ("", "scrypt.1.2.3", kept[:-4], "scrypt.99999999999.AA.AA", passwords.DUMMY_HASH):
        assert not passwords.verify_password("", broken)


@pytest.mark.parametrize(("flags", "words"), [
    (["--host", "0.0.0.0"], ["--token new", "--auth"]),
    (["--auth", "anna:secret"], ["--hash"]),
    (["--token", "short"], ["16"]),
    (["--ssl-certfile", "a.pem"], ["--ssl-keyfile", "together"]),
    (["--ssl-certfile", "a.pem", "--ssl-keyfile", "b.pem"], ["a.pem", "no such file"]),
])
def test_unsafe_settings_are_refused(flags: list[str], words: list[str]) -> None:
    settings: dict[str, Any] = {flag.removeprefix("--").replace("-", "_"): value for flag, value in
                                zip(flags[::2], flags[1::2], strict=True)}
    with pytest.raises(UsageError) as refused:
        startup.check(WebSettings(**settings))
    assert all(word in str(refused.value) for word in words)


def test_web_hashes_passwords_and_refuses_invalid_ports(capsys: pytest.CaptureFixture[str]) -> None:
    made = subprocess.run([sys.executable, "-m", "streamdream", "web", "--hash"], input=PASSWORD + "\n", text=True,
                          capture_output=True, timeout=60).stdout.strip()
    assert passwords.verify_password(PASSWORD, made)
    fails(here(capsys, "web", "--port", "70000"), 2, "--port", "0..65535")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="cannot listen"):
            startup.open_port(WebSettings(port=port))
    assert len(startup.check(WebSettings(token="new", host="0.0.0.0")).token) > 20


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_page_and_socket_work_over_tls(picture: NDArray[np.uint8], tmp_path: Path) -> None:
    """Page and socket; who speaks plainly gets nothing, and who does not trust the certificate stays away."""
    files = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=files["ssl_certfile"])
    with running(token=TOKEN, **files) as web:
        assert web.url.startswith("https:")
        with urllib.request.urlopen(web.url + "/healthz", context=trusting, timeout=20) as answer:
            assert answer.status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(web)
        with pytest.raises(OSError), urllib.request.urlopen(web.url.replace("https", "http") + "/healthz", timeout=20):
            pass
        with pytest.raises(InvalidStatus, match="401"):
            Client(web, ssl=trusting)
        with Client(web, ssl=trusting, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            client.welcome()
            assert client.dream(picture).shape == picture.shape


def test_a_missing_certificate_is_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cert.pem").write_text("hello")
    flags = "--ssl-certfile", tmp_path / "cert.pem", "--ssl-keyfile", tmp_path / "cert.pem"
    fails(here(capsys, "web", "--port", "0", *flags), 2, "--ssl-certfile", "cert.pem", "PEM")


# --- how much ---------------------------------------------------------------------------------------------------------

def still_serves(web: Running, picture: NDArray[np.uint8]) -> None:
    with Client(web) as client:
        client.welcome()
        assert client.dream(picture).shape == picture.shape


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.full((96, 128, 3), 99, np.uint8)


def test_a_frame_of_a_hundred_megabytes(web: Running, picture: NDArray[np.uint8]) -> None:
    with Client(web) as client:
        client.welcome()
        with pytest.raises(ConnectionClosed):
            client.socket.send(bytes(100_000_000))
            while True:
                client.hear()
    still_serves(web, picture)


@pytest.mark.parametrize("frame", [jpeg_of(30_000, 30_000), jpeg_of(2000, 2000), b"\xff\xd8\xff\xe0" + bytes(2000),
                                   b"GIF89a" + bytes(500), b"<svg onload='alert(1)'/>", jpeg_of(64, 64)[:-2]])
def test_messages_that_are_no_picture_are_not_decoded(web: Running, picture: NDArray[np.uint8], frame: bytes) -> None:
    with pytest.raises(SourceError):
        browser_io.decode(frame)
    with Client(web) as client:
        client.welcome()
        client.socket.send(browser_io.HEADER.pack(1, 0) + frame)
        client.number = 1
        assert client.dream(picture).shape == picture.shape  # one is forgiven
        with pytest.raises(ConnectionClosed):
            for number in range(2, 60):
                client.socket.send(browser_io.HEADER.pack(number, 0) + frame)
                with suppress(TimeoutError):
                    client.hear(0.1)
    until(lambda: not web.waiting_room.sessions)


@pytest.mark.parametrize("message", [b"", b"x", "no json", "[]", "{}", '{"type": "what"}', '{"type": "settings"}',
                                     '{"type":' * 3000, "9" * 9000, '{"type": "settings", "values": 3}'])
def test_garbage_ends_the_connection(web: Running, message: bytes | str) -> None:
    with Client(web) as client:
        client.welcome()
        client.socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.hear()
        assert closed.value.rcvd and closed.value.rcvd.code == 1008


@pytest.mark.soak
def test_a_thousand_sockets_from_one_address_do_not_lock_out_another(web: Running, picture: NDArray[np.uint8]) -> None:
    with ExitStack() as held:
        opened = 0
        for _ in range(1000):
            connection = held.enter_context(socket.socket())
            connection.bind(("127.0.0.2", 0))
            connection.settimeout(5)
            with suppress(OSError):
                connection.connect(("127.0.0.1", web.port))
                opened += 1
        until(lambda: web.app_state.counts["refused connections"] >= 900)
        still_serves(web, picture)
    assert opened > 900


def test_a_slow_request_is_closed(web: Running, monkeypatch: pytest.MonkeyPatch,
                                                picture: NDArray[np.uint8]) -> None:
    monkeypatch.setattr(limits, "HEADERS_SECONDS", 1.0)
    with ExitStack() as held:
        slow = [held.enter_context(socket.create_connection(("127.0.0.1", web.port))) for _ in range(10)]
        began = time.monotonic()
        left = list(slow)
        while left and time.monotonic() < began + 8:
            for connection in list(left):
                try:
                    connection.sendall(b"G" if time.monotonic() < began + 0.5 else b"E")
                except OSError:
                    left.remove(connection)
            time.sleep(0.2)
        assert not left
    still_serves(web, picture)


def send_body(web: Running, path: str, *chunks: bytes) -> bytes:
    """The answer to a POST of those chunks, which does not end, and says no length."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(OSError):  # it need not read all of it
            for chunk in chunks:
                connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
        return answer


BODIES = ["/gradio_api/queue/join", "/gradio_api/cancel", "/uploads?name=a.png", "/login"]


def test_a_body_that_states_too_much_is_refused_with_413(web: Running) -> None:
    assert ask(web, "/gradio_api/queue/join", b"", method="POST", Content_Length="90000000")[0] == 413


@pytest.mark.parametrize("path", BODIES[:2])
def test_a_body_that_grows_too_large_is_refused_with_413(web: Running, path: str) -> None:
    answer = send_body(web, path, *[bytes(1_000_000)] * 12)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"content-security-policy" in answer


def test_an_upload_that_stops_coming_is_refused_with_a_message_for_the_page(
    web: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.5)
    answer = send_body(web, "/uploads?name=a.png", b"\x89PNG")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"too slow" in answer and b"content-security-policy" in answer


@pytest.mark.parametrize("path", BODIES[:2])
def test_a_body_that_stops_coming_is_refused_with_408(web: Running, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_SECONDS", 0.5)
    answer = send_body(web, path, b'{"da')
    assert answer.startswith(b"HTTP/1.1 408 ") and b"content-security-policy" in answer


def test_a_body_that_comes_too_slowly_is_refused_with_408(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(b"POST /gradio_api/cancel HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 999\r\n\r\n")
        answer, began = b"", time.monotonic()
        connection.settimeout(0.1)
        while not answer and time.monotonic() < began + 8:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_answer_is_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY only on sockets whose protocol is named; others wait for the browser's ACK."""
    with startup.open_port(WebSettings(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_log_lines_cannot_be_forged() -> None:
    record = logging.LogRecord("streamdream", logging.INFO, "", 1, "refused: a\nb %s", ("\x1b[2J<script>",), None)
    record.facts = {"path": "/\r\nforged"}
    assert "\n" not in logs.TextFormatter().format(record) and "\x1b" not in logs.TextFormatter().format(record)
    entry = json.loads(logs.JsonFormatter().format(record))
    assert entry["path"] == "/\r\nforged" and entry["level"] == "info"


def test_metrics_need_their_package_and_tell_counts(web: Running, picture: NDArray[np.uint8]) -> None:
    from streamdream_web.server import metrics

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    end = metrics.serve(port, web.app_state, web.waiting_room, web.jobs_service)
    try:
        still_serves(web, picture)
        assert ask(web, "/", Host="evil.example")[0] == 403
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        end()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["streamdream_sessions_total"]) > 0 and float(values["streamdream_frames_total"]) > 0
    assert 'streamdream_refused_total{reason="403"}' in values


@pytest.mark.parametrize(("flags", "part"), [
    (("--device", "warp"), "--device warp cannot be used"), (("--backend", "tensorrt"), "backend tensorrt cannot run")])
def test_the_server_does_not_start_without_what_was_asked_for_by_name(
        flags: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "tensorrt" in flags and backends.available("tensorrt")[0]:
        pytest.skip("TensorRT runs here")
    fails(here(capsys, "web", "--port", "0", *flags), 2, part)
