"""The benchmark of the page: the relay has its delay and bandwidth, and the numbers are read."""
from __future__ import annotations

import socket
import threading
import time

import pytest
from streamdream_bench import Options, web
from streamdream_bench.web import Case
from support.browser import CHROMIUM
from support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_relay_has_its_delay_and_bandwidth() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:  # takes everything, then says one byte
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    left = 1
                    while left > 0 and (data := connection.recv(65536)):
                        left = int(data[1:8]) - len(data) if data[:1] == b"#" else left - len(data)
                    connection.sendall(b"!")

        threading.Thread(target=serve, daemon=True).start()
        case = Case("", 0, 0, rtt_ms=80, up_mbit=8)
        port = web.free_port()
        with web.running([*web.relay_command(port, server.getsockname()[1], case)]):
            until(lambda: listens(port))

            def send(size: int) -> float:
                began = time.monotonic()
                with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                    connection.sendall(b"#%07d" % size + bytes(size - 8))
                    assert connection.recv(1) == b"!"
                return time.monotonic() - began

            assert send(8) >= 0.08
            assert send(500_000) >= 0.5  # 4 Mbit


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_the_page_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SETTLE_SECONDS", 2.0)
    row, = web.measure(Case("alone", 320, 240), Options(backend="eager", field_height=96), CHROMIUM, 3.0)
    assert row["fps"] > 3 and row["dreams_per_s"] > 0 and row["misread"] <= 3 * row["fps"] / 10
    assert 0 <= row["glass_p50_ms"] <= row["glass_p95_ms"] < 3000
    assert "eager" in row["engine"]
