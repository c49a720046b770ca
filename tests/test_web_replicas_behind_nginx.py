"""Two real servers behind Debian's nginx, as in docs/proxies: one is killed, one drains; visitors dream on."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support.broadcast import free_port
from support.browser import CHROMIUM
from support.commands import streamdream
from support.dreams_page import CARD, begin, frames
from support.proxies import EXAMPLES, proxy
from support.visitors import TRUSTING, Visitor
from support.waiting import until
from support.web_jobs import times_and_sound
from support.web_process import server

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx")]
VISITORS = 8
FLAGS = ("--backend", "eager", "--max-sessions", "16", "--layers", "mixed0", "--octaves", "1", "--warmup-steps", "0",
         "--keep-hours", "1", "--session-seconds", "3600")
HUNG_UP = "received 1012"


class Site:
    """Two replicas, named as in the example, behind nginx."""

    def __init__(self, folder: Path, certificate: Path, stack: ExitStack, *flags: str) -> None:
        self._folder, self._stack, self._flags = folder, stack, (*FLAGS, *flags)
        self.ports = {"dream-1:7860": free_port(), "dream-2:7860": free_port()}
        self.logs: dict[str, Path] = {}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for name in self.ports:
            self.start(name)
        self.port = stack.enter_context(
            proxy("nginx", folder, certificate, self.ports, example="nginx-replicas.conf"))
        self.url = f"https://localhost:{self.port}"

    def start(self, name: str) -> None:
        folder = self._folder / f"{name.partition(':')[0]}-{len(self.logs)}"
        folder.mkdir()
        self.processes[name], self.logs[name] = self._stack.enter_context(server(
            folder, "--port", str(self.ports[name]), "--shared-folder", str(self._folder / "shared"), *self._flags))

    def ready(self, name: str) -> None:
        until(lambda: self.status(name) == 200, 60)

    def status(self, name: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def sessions(self, name: str) -> int:
        """How many live sessions it has begun."""
        return self.logs[name].read_text().count("a live session began")


@pytest.fixture()
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def dreaming(site: Site, image: NDArray[np.uint8], held: ExitStack) -> list[Visitor]:
    """Visitors who have their first dreams."""
    for name in site.ports:
        site.ready(name)
    visitors = [Visitor(site.url, number, image) for number in range(VISITORS)]
    for visitor in visitors:
        held.callback(visitor.leave)
        visitor.dreams_again(0.0)
    return visitors


def test_eight_visitors_dream_on_when_a_replica_is_killed_and_when_one_drains(
        certificate: Path, tmp_path: Path, held: ExitStack, small: NDArray[np.uint8],
        record_property: Any) -> None:
    site = Site(tmp_path, certificate, held, "--drain-seconds", "3")
    first, second = site.ports
    visitors = dreaming(site, small, held)
    assert site.sessions(first) and site.sessions(second), "nginx does not share them out"
    assert all(len(visitor.sessions) == 1 and not visitor.losses for visitor in visitors)

    killed_at = time.monotonic()
    site.processes[first].kill()
    for visitor in visitors:
        visitor.dreams_again(killed_at)
        assert visitor.confirmed["strength"] == visitor.values["strength"], "the settings were lost"
    gaps = [visitor.gap_seconds(killed_at) for visitor in visitors]
    assert sum(len(visitor.sessions) == 2 for visitor in visitors) == site.sessions(second) - sum(
        len(visitor.sessions) == 1 for visitor in visitors)

    site.start(first)
    site.ready(first)
    before = {visitor: len(visitor.sessions) for visitor in visitors}
    stopped_at = time.monotonic()
    site.processes[second].send_signal(signal.SIGTERM)
    until(lambda: site.status(second) == 503)
    assert {len(visitor.sessions) for visitor in visitors} == {*before.values()}, "the drain has ended a session"
    newcomer = Visitor(site.url, VISITORS, small)
    held.callback(newcomer.leave)
    newcomer.dreams_again(stopped_at)
    assert site.processes[second].poll() is None
    site.processes[second].wait(30)
    moved_at = time.monotonic()
    for visitor in (*visitors, newcomer):
        visitor.dreams_again(moved_at)
        assert visitor.confirmed["strength"] == visitor.values["strength"]
    assert all(HUNG_UP in visitor.losses[-1] for visitor in visitors if len(visitor.sessions) > before[visitor])
    record_property("longest gap, killed", max(gaps))
    record_property("longest gap, drained", max(visitor.gap_seconds(stopped_at) for visitor in visitors))


def test_visitors_fill_all_places_before_one_waits_and_whoever_waits_gets_the_first_place(
        certificate: Path, tmp_path: Path, held: ExitStack, small: NDArray[np.uint8]) -> None:
    site = Site(tmp_path, certificate, held, "--max-sessions", str(VISITORS // 2))
    visitors = dreaming(site, small, held)  # a hash alone gives one of the two more than its half
    assert [site.sessions(name) for name in site.ports] == [VISITORS // 2] * 2
    for number, name in enumerate(site.ports):  # wherever the late one waits
        late = Visitor(site.url, VISITORS + number, small)
        held.callback(late.leave)
        time.sleep(2)
        assert not late.dreamed_at
        began = site.logs[name].read_text()
        next(visitor for visitor in visitors if f"session {visitor.sessions[0][:4]}" in began).leave()
        late.dreams_again(0.0)
    assert sum(site.sessions(name) for name in site.ports) == VISITORS + 2
    assert sum(len(visitor.losses) for visitor in visitors) <= 2, "who dreams has lost nothing"


@pytest.mark.soak
def test_visitors_of_a_replica_that_hangs_dream_on_with_the_other(
        certificate: Path, tmp_path: Path, held: ExitStack, small: NDArray[np.uint8], record_property: Any) -> None:
    site = Site(tmp_path, certificate, held)
    first = next(iter(site.ports))
    visitors = dreaming(site, small, held)
    hung_at = time.monotonic()
    site.processes[first].send_signal(signal.SIGSTOP)
    for visitor in visitors:
        visitor.dreams_again(hung_at + 10.0, 60.0)
    moved = [visitor for visitor in visitors if len(visitor.sessions) > 1]
    assert moved and len(moved) < VISITORS
    record_property("longest gap, hung", max(visitor.gap_seconds(hung_at) for visitor in visitors))
    for visitor in moved:
        request = urllib.request.Request(site.url, headers={"Cookie": visitor.cookie})
        with urllib.request.urlopen(request, timeout=15, context=TRUSTING) as answer:
            assert answer.status == 200
    site.processes[first].send_signal(signal.SIGCONT)
    site.ready(first)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.soak
def test_a_video_goes_on_in_another_replica_and_its_page_sees_that(
        browser: Any, certificate: Path, tmp_path: Path, held: ExitStack, world: Path) -> None:
    site = Site(tmp_path, certificate, held, "--steps", "4")
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    begin(page, site.url, world, (0, 8))
    page.evaluate("window.isSamePage = true")
    until(lambda: frames(page) > 50, 60)
    assert frames(page) < 240
    name, = (name for name in site.ports if "a job waits" in site.logs[name].read_text())
    site.processes[name].kill()
    page.wait_for_selector(f"{CARD}[data-state=done]")
    assert page.evaluate("window.isSamePage"), "the page was loaded again"
    saved = page.evaluate("async (url) => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]",
                          page.get_attribute(f"{CARD} video", "src"))
    (tmp_path / "saved.mp4").write_bytes(bytes(saved))
    assert len(times_and_sound(tmp_path / "saved.mp4")[0]) == 240
    other, = (each for each in site.ports if each != name)
    assert "its server has ended" in site.logs[other].read_text()
    context.close()


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="no Compose here")
def test_the_compose_file_is_one_and_its_flags_are_those_of_the_program() -> None:
    environment = {**os.environ, "DREAM_TOKEN": "t" * 16}
    answer = subprocess.run(["docker-compose", "-f", str(EXAMPLES / "compose.yaml"), "config"], env=environment,
                            capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    services = yaml.safe_load(answer.stdout)["services"]
    assert set(services) == {"dream-1", "dream-2", "nginx"}
    for name in ("dream-1", "dream-2"):
        checked = streamdream("web", *services[name]["command"], "--print-config")
        assert checked.returncode == 0, checked.stderr
        assert f"{name}:7860" in (EXAMPLES / "nginx-replicas.conf").read_text()
    without = subprocess.run(["docker-compose", "-f", str(EXAMPLES / "compose.yaml"), "config", "-q"],
                             capture_output=True, text=True)
    assert without.returncode and "a secret of 16 characters" in without.stderr
