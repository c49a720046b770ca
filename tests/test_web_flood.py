"""Visitors who send as fast as they can: the server answers others meanwhile, keeps its memory, and can be stopped."""
from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

FLOOD_SECONDS = 4.0
MAX_ANSWER_SECONDS = 2.0
"""Of /healthz. 0.5 s is promised, and printed; a shared machine may take longer, a held event loop takes far longer."""
MAX_STOP_SECONDS = 10.0
"""From SIGTERM to the end of the process; without a flood it is about 2 s."""
MAX_GROWTH_MB = 50.0


@pytest.fixture()
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process and its port; two may dream at once."""
    command = [sys.executable, "-m", "streamdream", "web", "--port", "0", "--field-height", "96", "--backend", "eager",
               "--warmup-steps", "0", "--max-sessions", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        yield process, _port(tmp_path / "log", process)
    finally:
        process.kill()
        process.wait()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
            with contextlib.suppress(OSError):
                ask_health(int(found[1]))
                return int(found[1])
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def ask_health(port: int) -> float:
    """Seconds that an answer took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    finally:
        connection.close()
    return time.monotonic() - began


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def text_frame(word: dict[str, Any]) -> bytes:
    """As a client sends it; the mask is 0."""
    data = json.dumps(word).encode()
    length = struct.pack(">B", 0x80 | len(data)) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
    return b"\x81" + length + bytes(4) + data


def enter(port: int) -> tuple[socket.socket, bool]:
    """A live socket that has said hello, and whether it may dream or has to wait. Raises OSError."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        return opened, say_hello(opened, port)
    except OSError:
        opened.close()
        raise


def say_hello(opened: socket.socket, port: int) -> bool:
    opened.sendall(f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
                   "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    answer = opened.recv(4096)
    opened.sendall(text_frame({"type": "hello", "session": "", "values": {}}))
    while b'"welcome"' not in answer and b'"waiting"' not in answer:
        data = opened.recv(4096)
        if not data:
            raise ConnectionRefusedError(answer)
        answer += data
    return b'"welcome"' in answer


def warm_up(port: int) -> None:
    """Have what is loaded at the first use loaded."""
    first, _ = enter(port)
    first.sendall(text_frame({"type": "settings", "values": {"strength": 1.5, "nonsense": 1}}))
    time.sleep(2)
    first.sendall(text_frame({"type": "bye"}))
    time.sleep(1)
    first.close()
    for _ in range(20):
        ask_health(port)


def many_new_names() -> bytes:
    return b"".join(text_frame({"type": "settings", "values": {secrets.token_hex(50): 1 for _ in range(64)}})
                    for _ in range(200))


def many_unknown_names() -> bytes:
    return text_frame({"type": "settings", "values": {f"k{number}": 1 for number in range(500)}}) * 200


def legal_values() -> bytes:
    return b"".join(text_frame({"type": "settings", "values": {"strength": 1 + number / 1000}})
                    for number in range(1000))


def pings() -> bytes:
    return (b"\x89\x80" + bytes(4)) * 50_000


def empty_parts_of_a_message() -> bytes:
    return b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 50_000


class Flooder(threading.Thread):
    """One visitor who sends all the time, and comes back when put out."""

    def __init__(self, port: int, make: Callable[[], bytes]) -> None:
        super().__init__(daemon=True)
        self._port, self._make = port, make
        self._socket: socket.socket | None = None
        self.stop = threading.Event()
        self.sent_bytes = self.visits = 0
        self.admitted = False

    def enter(self) -> None:
        self._socket, self.admitted = enter(self._port)
        self.visits += 1

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                if self._socket is None:
                    self.enter()
                data = self._make()
                assert self._socket is not None
                self._socket.sendall(data)
                self.sent_bytes += len(data)
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
                time.sleep(0.01)


def test_a_flood_of_messages_delays_nobody(server: tuple[subprocess.Popen[bytes], int]) -> None:
    """Two who dream and three who wait send far more than anybody could mean."""
    process, port = server
    warm_up(port)
    before_mb, slowest_seconds = resident_mb(process), 0.0
    flooders = [Flooder(port, make) for make in (many_unknown_names, legal_values, many_new_names, pings,
                                                       empty_parts_of_a_message)]
    try:
        for flooder in flooders:
            flooder.enter()
        assert [flooder.admitted for flooder in flooders] == [True, True, False, False, False]
        for flooder in flooders:
            flooder.start()
        deadline = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < deadline:
            slowest_seconds = max(slowest_seconds, ask_health(port))
            time.sleep(0.01)
        grown_mb = resident_mb(process) - before_mb
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.wait(60)
        stop_seconds = time.monotonic() - began
    finally:
        for flooder in flooders:
            flooder.stop.set()
    sent = [f"{flooder.sent_bytes / 1e6:.1f} MB in {flooder.visits} visits" for flooder in flooders]
    sys.stdout.write(f"slowest answer {slowest_seconds:.3f} s, memory {grown_mb:+.1f} MB, stopped after "
                     f"{stop_seconds:.2f} s, sent {', '.join(sent)}\n")
    assert slowest_seconds < MAX_ANSWER_SECONDS
    assert grown_mb < MAX_GROWTH_MB
    assert stop_seconds < MAX_STOP_SECONDS
