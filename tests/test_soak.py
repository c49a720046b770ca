"""A server for minutes: visitors come and go, sessions change what they dream, and its memory stays what it was.

SOAK_SECONDS says for how long; the first minute and a half only fills memory. SOAK_FLAGS are the server's: with
``--memory auto`` on a large machine, what is held is bounded by what is used within 30 s, and so varies by a third.
"""
from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import ENVIRONMENT
from support.waiting import until
from support.web_client import Client

from streamdream import models

pytestmark = [pytest.mark.alone, pytest.mark.soak,
              pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")]

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SESSIONS, VISITS = 8, 200
CHANGE_SECONDS, PICTURE_SECONDS = 5.0, 0.1
"""How often each session changes what it dreams, and sends a picture."""
HIGHEST_GROWTH = 1.1
"""Of the memory at the end against that at three tenths of the time."""


@dataclass
class Server:
    """A server in a process of its own, as a client needs to know it."""

    process: subprocess.Popen[str]
    port: int
    metrics_port: int
    waiting_room: Any = None
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status_mb(self, name: str, pid: int | None = None) -> float:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid or self.process.pid}/status").read_text()
            if found := re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE):
                return int(found[1]) * 1024 / 1e6
        return 0.0

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {line.split()[0].removeprefix("streamdream_"): float(line.split()[1]) for line in lines
                if line.startswith("streamdream_") and "{" not in line}


@pytest.fixture()
def server(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("prometheus_client")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    with (tmp_path / "log").open("w+") as log:
        arguments = ["web", "--port", str(ports[0]), "--metrics-port", str(ports[1]), "--max-sessions",
                     str(SESSIONS + 2), *os.environ.get("SOAK_FLAGS", "--memory 512M").split()]
        process = subprocess.Popen([sys.executable, "-m", "streamdream", *arguments], stdout=log, stderr=log, text=True,
                                   env=ENVIRONMENT)
        try:
            until(lambda: "streamdream is on" in (tmp_path / "log").read_text(), 120)
            yield Server(process, *ports)
            assert process.poll() is None, (tmp_path / "log").read_text()
        finally:
            process.terminate()
            process.wait(30)
    assert "Traceback" not in (tmp_path / "log").read_text()


def choices(chance: random.Random) -> dict[str, Any]:
    """What a visitor may set by a click or by a slider: layers and a look."""
    layers = models.get("inception_v3").blocks()
    picked = chance.sample(layers, chance.choice((1, 1, 1, 2)))
    return {"layers": ",".join(picked), "octaves": chance.randint(1, 3), "octave_scale": chance.choice((1.3, 1.4, 1.7)),
            "strength": chance.choice((0.5, 1.0, 2.0)), "smooth": chance.choice((0.5, 1.5, 3.0)),
            "color": chance.choice((0.0, 0.4, 1.0)), "steps": chance.randint(1, 2)}


def dream_on(server: Server, number: int, over: threading.Event, pictures: list[int], errors: list[str]) -> None:
    chance, image = random.Random(number), photo(number)
    try:
        while not over.is_set():
            with Client(server, choices(chance)) as client:  # type: ignore[arg-type]
                client.welcome()
                left = time.monotonic() + 60  # then the page is loaded anew
                changed = time.monotonic()
                while not over.wait(PICTURE_SECONDS) and time.monotonic() < left:
                    client.dream(np.roll(image, pictures[number], axis=1))
                    pictures[number] += 1
                    client.words.clear()
                    if time.monotonic() > changed + CHANGE_SECONDS:
                        changed = time.monotonic()
                        client.say(type="settings", values=choices(chance))
    except Exception as error:
        errors.append(f"session {number}: {type(error).__name__}: {error}")


def photo(number: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    return np.kron(coarse, np.ones((20, 20, 1), np.uint8))


def visit(server: Server, number: int) -> None:
    """The page and its parts, and a moment of live."""
    for path in ("/", "/config", "/streamdream/app.css", "/layers/inception_v3/3", "/healthz"):
        with urllib.request.urlopen(server.url + path, timeout=60) as answer:
            answer.read()
    with Client(server) as client:  # type: ignore[arg-type]
        client.welcome()
        client.dream(photo(number))
        client.say(type="bye")


def test_memory_stays_within_a_tenth(server: Server) -> None:
    """Over 200 visits, and 8 sessions that change layers and looks."""
    over, errors, pictures = threading.Event(), list[str](), [0] * SESSIONS
    sessions = [threading.Thread(target=dream_on, args=(server, number, over, pictures, errors))
                for number in range(SESSIONS)]
    seen: list[tuple[float, float]] = []
    began, visits, minute = time.monotonic(), 0, 0
    print(f"\n{'minute':>6} {'rss MB':>8} {'held MB':>8} {'dreams':>8} {'pictures':>9} {'visits':>7}")

    def print_row(passed: float) -> None:
        row = server.metrics()
        print(f"{passed / 60:6.1f} {seen[-1][1]:8.0f} {row['prepared_megabytes']:8.0f} "
              f"{row['dreams_total']:8.0f} {sum(pictures):9} {visits:7}", flush=True)

    for thread in sessions:
        thread.start()
    try:
        while (passed := time.monotonic() - began) < SECONDS and not errors:
            seen.append((passed, server.status_mb("VmRSS")))
            if passed >= 60 * minute:
                print_row(passed)
                minute += 1
            if visits < VISITS * passed / SECONDS:
                visit(server, visits)
                visits += 1
            else:
                time.sleep(0.5)
        print_row(SECONDS)
    finally:
        over.set()
        for thread in sessions:
            thread.join(60)
    assert not errors and visits >= 0.9 * VISITS and min(pictures) > SECONDS / 60
    early, late = (median(rss for at, rss in seen if share - 0.1 <= at / SECONDS <= share) for share in (0.3, 1.0))
    print(f"{early:.0f} MB at {0.3 * SECONDS / 60:.1f} minutes, {late:.0f} MB at {SECONDS / 60:.1f}")
    assert late < HIGHEST_GROWTH * early
