"""Where a visitor comes from when there is a proxy, and when somebody only says so."""
from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from streamdream_web.auth import proxies
from streamdream_web.core import limits
from support.waiting import until
from support.web_client import Running, ask, running
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

LIMIT = 20


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    """127.0.0.1 is a trusted proxy of it, and 127.0.0.2 is anybody."""
    with running(connections_per_address=LIMIT, trusted_proxies="127.0.0.1, 10.0.0.0/8") as running_server:
        yield running_server


def open_socket(web: Running, forwarded_for: str, peer: str = "127.0.0.1") -> Any:
    named: Any = {"origin": web.url, "source_address": (peer, 0)}
    return connect(f"ws://127.0.0.1:{web.port}/live", additional_headers={"X-Forwarded-For": forwarded_for}, **named)


def test_visitors_behind_a_proxy_are_counted_one_by_one(web: Running) -> None:
    with ExitStack() as held:
        for number in range(65):
            held.enter_context(open_socket(web, f"198.51.100.{number}"))
        assert ask(web, "/healthz", X_Forwarded_For="198.51.100.99")[0] == 200


def test_one_visitor_behind_a_proxy_has_a_limit(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_WAIT_SECONDS", 0.2)
    with ExitStack() as held:
        for _ in range(LIMIT):
            held.enter_context(open_socket(web, "203.0.113.5, 10.1.2.3"))
        with pytest.raises(InvalidStatus, match="429"):
            open_socket(web, "1.2.3.4, 203.0.113.5")  # what the visitor said itself does not count
        assert ask(web, "/healthz", X_Forwarded_For="203.0.113.6")[0] == 200
    until(lambda: ask(web, "/healthz", X_Forwarded_For="203.0.113.5")[0] == 200)


def test_an_untrusted_proxy_is_one_visitor(web: Running, caplog: pytest.LogCaptureFixture) -> None:
    refused = web.app_state.counts["refused connections"]
    with ExitStack() as held, caplog.at_level(logging.WARNING, "streamdream_web.server.connection_limits"):
        for number in range(LIMIT):
            held.enter_context(open_socket(web, f"198.51.100.{number}", peer="127.0.0.2"))
        for number in range(30):
            with pytest.raises((InvalidMessage, ConnectionClosed, OSError, EOFError)):
                open_socket(web, f"192.0.2.{number}", peer="127.0.0.2")
    assert web.app_state.counts["refused connections"] - refused >= 30
    lines = [record for record in caplog.records if "refused" in record.message]
    assert len(lines) == 1 and vars(lines[0])["facts"]["address"] == "127.0.0.2"


def root_of(web: Running, peer: str, **headers: str) -> str:
    """What Gradio takes for its own address."""
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).replace("_", "-")
    with socket.create_connection(("127.0.0.1", web.port), source_address=(peer, 0), timeout=20) as connection:
        connection.sendall(f"GET /config HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{text}\r\n".encode())
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    return str(json.loads(body)["root"])


def test_only_a_trusted_proxy_sets_the_host(web: Running) -> None:
    said = {"X_Forwarded_Host": "dream.example", "X_Forwarded_Proto": "https"}
    assert root_of(web, "127.0.0.1", **said) == "https://dream.example"
    assert root_of(web, "127.0.0.2", **said) == "http://127.0.0.1"
    assert root_of(web, "127.0.0.1", X_Gradio_Server="http://evil.example") == "http://127.0.0.1"
    assert root_of(web, "127.0.0.1", X_Forwarded_Host="evil.example/x?") == "http://127.0.0.1"


@pytest.mark.parametrize(("host", "counted"), [
    ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0"),
    ("2600:1:2:3:4:5:6:7", "2600:1:2:3::"), ("no address" * 20, ("no address" * 20)[:64]), ("", "")])
def test_an_address_is_what_one_visitor_has(host: str, counted: str) -> None:
    assert proxies.normalize(host) == counted
