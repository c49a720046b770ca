"""A server that drains: SIGTERM with --drain-seconds, what goes on, what is sent elsewhere, and when it stops."""
from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.server import draining
from support.live_sockets import close_code, cookie, refusal
from support.waiting import until
from support.web_client import Client, Running, ask, running
from support.web_process import server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

LONG_SECONDS = 600.0


def drain(web: Running) -> None:
    """As SIGTERM does."""
    web.server.drain()
    until(lambda: web.app_state.draining)


def has_stopped(web: Running) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", web.port)) != 0


def test_a_dream_goes_on_while_new_visitors_are_sent_elsewhere_and_the_server_stops_after_it(
    small: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with running(max_sessions=1, drain_seconds=LONG_SECONDS) as web:
        until(lambda: ask(web, "/readyz")[0] == 200)
        with Client(web, **cookie("a")) as dreamer, Client(web, **cookie("b")) as waiting:
            dreamer.welcome()
            assert waiting.word("waiting")["place"] == 0
            drain(web)
            assert close_code(waiting) == 1012
            status, _, body = ask(web, "/readyz")
            assert (status, json.loads(body)["status"]) == (503, "draining")
            assert ask(web, "/healthz")[0] == ask(web, "/live/facts")[0] == ask(web, "/config")[0] == 200
            status, headers, _ = ask(web, "/")
            assert status == 503 and int(headers["Retry-After"]) > 0 and "frame-ancestors" in str(headers)
            for other in (cookie("b"), {}):
                answer = refusal(web, **other)
                assert answer.status_code == 503 and "Retry-After" in answer.headers
            assert dreamer.settle(small).shape == small.shape
            dreamer.socket.socket.close()  # the network is lost for a moment
            with Client(web, session=dreamer.token, **cookie("a")) as again:
                assert again.welcome()["resumed"]
                again.number = 1000
                again.dream(small)
        until(lambda: has_stopped(web))
    lines = [(record.getMessage(), getattr(record, "facts", {})) for record in caplog.records
             if record.name == draining.__name__]
    assert [message.partition(":")[0] for message, _ in lines] == ["draining", "drained"]
    assert lines[0][1]["sessions"] == lines[0][1]["waiting"] == 1 and "600 s" in lines[0][0]
    assert lines[1][0].endswith("nothing is left") and lines[1][1]["sessions"] == 0


def test_whoever_says_hello_to_a_draining_server_is_sent_elsewhere() -> None:
    with running(max_sessions=1, drain_seconds=LONG_SECONDS) as web, Client(web) as dreamer:
        dreamer.welcome()
        with connect(f"{web.url.replace('http', 'ws')}/live", origin=Origin(web.url)) as late:
            drain(web)
            late.send('{"type": "hello"}')
            with pytest.raises(ConnectionClosed) as closed:
                late.recv(10)
            assert closed.value.rcvd and closed.value.rcvd.code == 1012


def test_a_dream_that_does_not_end_is_closed_when_the_time_is_up(small: NDArray[np.uint8]) -> None:
    with running(drain_seconds=2) as web:
        with Client(web) as client:
            client.welcome()
            drain(web)
            client.dream(small)
            assert refusal(web).status_code == 503  # nobody is known by the lack of a cookie
            assert close_code(client) == 1012
        until(lambda: has_stopped(web))
    assert not web.app_state.folder.exists()


def test_a_job_that_runs_is_waited_for() -> None:
    released = threading.Event()
    with running(drain_seconds=LONG_SECONDS) as web:
        job = web.jobs_service.start(web.jobs_service.stills, "visitor", "picture",
                                     lambda job, device_slot: released.wait(20))
        until(lambda: job.state == "running")
        drain(web)
        time.sleep(0.5)
        assert not has_stopped(web) and not job.finished
        released.set()
        until(lambda: has_stopped(web))
        assert job.state == "done"


def test_an_upload_that_is_received_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "NEXT_PIECE_SECONDS", 0.5)
    with running(drain_seconds=LONG_SECONDS) as web, socket.create_connection(("127.0.0.1", web.port)) as visitor:
        visitor.sendall(b"POST /uploads?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n123")
        until(lambda: web.jobs_service.uploads.receptions._active)
        drain(web)
        time.sleep(1)  # longer than between two pieces
        assert not has_stopped(web)
        visitor.sendall(b"4" * 997)
        assert b"HTTP/1.1 400" in visitor.recv(1000)  # it is no picture; what counts is that it was looked at
        until(lambda: has_stopped(web))


def test_sigterm_ends_a_server_that_has_nothing_left_with_its_exit_code(tmp_path: Path) -> None:
    with server(tmp_path, "--drain-seconds", "600", "--backend", "eager", "--log", "json") as (process, log):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert "drained: nothing is left" in messages and messages[-1].startswith("terminated")


@contextmanager
def visited(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A server that would drain for long, as an upload does not end."""
    with server(folder, "--drain-seconds", "600", "--backend", "eager") as (process, log):
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", log.read_text())[0])
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"POST /uploads?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n123")
            until(lambda: list(folder.glob("**/uploads/*")))
            yield process, log


def test_a_second_sigterm_ends_the_drain_at_once(tmp_path: Path) -> None:
    with visited(tmp_path) as (process, log):
        process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in log.read_text())
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert "drained" not in log.read_text()


@pytest.mark.soak
def test_ctrl_c_drains_nothing(tmp_path: Path) -> None:
    with visited(tmp_path) as (process, log):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert "drain" not in log.read_text()
