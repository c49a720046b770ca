"""Live sessions on a device that dreams whole frames: residuals belong to their own frames, the device is shared."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_bench import Options, run_bench, sessions
from streamdream_web.core.scheduler import MAX_EXTENDED, FairScheduler
from streamdream_web.core.state import AppState
from streamdream_web.live import load_test
from streamdream_web.live.browser_io import HEADER
from streamdream_web.live.load_test import encode
from streamdream_web.live.session import LiveSession
from support.device_dreams import marked
from support.waiting import until
from support.web_jobs import ManualClock

from streamdream.dream.device_dreamer import PendingDream
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import StreamdreamError
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = DreamSettings(layers="conv2d_2", octaves=1, warmup_steps=0, jitter=4, cut=0.0)
STREAM = StreamSettings(field_height=64, backend="eager", device="cpu", precision="fp32", frame_path="device")


class Page:
    """A session and what it has sent back, by the number of the frame."""

    def __init__(self, app_state: AppState) -> None:
        self.levels: dict[int, NDArray[np.uint8]] = {}
        self.ended: list[str] = []
        self.session = LiveSession(app_state, "127.0.0.1", self._receive, self.ended.append)
        self.session.start()
        self.number = 0

    def _receive(self, message: bytes) -> None:
        jpeg = np.frombuffer(message[HEADER.size:], np.uint8)
        self.levels[HEADER.unpack_from(message)[0]] = cv2().imdecode(jpeg, cv2().IMREAD_COLOR_RGB)

    def send(self) -> int:
        self.number += 1
        self.session.push(self.number, encode(marked(self.number)))
        return self.number

    def dream(self) -> NDArray[np.uint8]:
        """Send a frame and return what comes back for it."""
        number = self.send()
        until(lambda: number in self.levels)
        return self.levels[number]


@contextmanager
def pages(count: int, settings: DreamSettings = SETTINGS) -> Iterator[list[Page]]:
    app_state = AppState(WebSettings(), settings, STREAM, LiveSettings(fixed_field=True))
    opened = [Page(app_state) for _ in range(count)]
    try:
        yield opened
    finally:
        for page in opened:
            page.session.stop()
            assert page.session.join(20)
        app_state.close()


def settled(page: Page) -> None:
    """Wait until frames come back with their own dream."""
    until(lambda: page.dream().shape == (128, 96, 3) and page.session.dreams > 0)


def test_what_comes_back_is_the_dream_of_that_very_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pending: dict[int, PendingDream] = {}
    submit = Dreamer.submit

    def recorded(dreamer: Dreamer, state: Any, frame: Frame, *args: Any, **options: Any) -> Any:
        state, pending[frame.pts] = submit(dreamer, state, frame, *args, **options)
        return state, pending[frame.pts]

    monkeypatch.setattr(Dreamer, "submit", recorded)
    with pages(1) as [page]:
        settled(page)
        for _ in range(12):
            came = page.dream().astype(int)
            own, before = (pending[number].result().astype(int) for number in (page.number, page.number - 1))
            assert np.abs(came - own).mean() < 0.5 * np.abs(came - before).mean()  # 2 of JPEG, against 8
        assert page.session.facts()["field"] == 64 and not page.ended


def test_the_strength_acts_on_what_comes_back() -> None:
    with pages(1) as [page]:
        settled(page)
        assert page.dream().max() > 2
        page.session.change({"strength": 0.0})
        page.dream()
        assert page.dream().max() <= 1


def test_sessions_on_a_device_all_advance() -> None:
    with pages(3) as opened:
        for page in opened:
            settled(page)
        before = [page.session.dreams for page in opened]
        for _ in range(8):
            for page in opened:
                page.send()
            until(lambda: all(page.number in page.levels for page in opened))
        until(lambda: all(page.session.dreams >= count + 7 for page, count in zip(opened, before, strict=True)))


def test_an_error_of_the_device_ends_only_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with pages(2) as [one, other]:
        settled(one)
        settled(other)
        result, failing = PendingDream.result, [RuntimeError("CUDA error")]

        def fails_once(pending: PendingDream) -> object:
            if failing:
                raise failing.pop()
            return result(pending)

        monkeypatch.setattr(PendingDream, "result", fails_once)
        until(lambda: one.send() and one.ended)
        assert one.ended == ["the dream failed; see the server's log"] and not other.ended
        assert other.dream().shape == (128, 96, 3)


# --- the slot ---------------------------------------------------------------------------------------------------------

def test_a_use_goes_on_after_its_slot_and_no_more_than_two() -> None:
    scheduler, entered = FairScheduler(), list[str]()
    ends: list[Callable[[], float]] = []
    for name in ("a", "b")[:MAX_EXTENDED]:
        with scheduler.device_slot(name) as use:
            ends.append(use.extend())

    def third() -> None:
        with scheduler.device_slot("c"):
            entered.append("c")

    thread = threading.Thread(target=third)
    thread.start()
    until(lambda: scheduler.waiting == 1)
    assert entered == []
    ends[0]()
    thread.join(20)
    assert entered == ["c"]
    ends[1]()


def test_uses_that_overlap_count_each_second_once() -> None:
    """A device computes in the order of submission: 10 s of a, then 3 s of b, which was submitted 1 s after a."""
    clock = ManualClock()
    scheduler = FairScheduler(clock)
    with scheduler.device_slot("a") as use:
        end_a = use.extend()
    clock.seconds += 1
    with scheduler.device_slot("b") as use:
        end_b = use.extend()
    clock.seconds += 9
    assert end_a() == 10
    clock.seconds += 3
    assert end_b() == 3


def test_the_device_is_shared_by_time_where_uses_overlap() -> None:
    """Frames of one client take three times as long: it gets a third as many."""
    clock, scheduler = ManualClock(), FairScheduler()
    scheduler._clock = clock
    cost, counts = {"quick": 1.0, "slow": 3.0}, {"quick": 0, "slow": 0}
    pending: list[tuple[str, Callable[[], float]]] = []
    stop = threading.Event()

    def work(name: str) -> None:
        while not stop.is_set():
            with scheduler.device_slot(name) as use:
                while scheduler.waiting < 1 and not stop.is_set():
                    stop.wait(0.0005)
                if stop.is_set():
                    return
                pending.append((name, use.extend()))
                counts[name] += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in cost]
    for thread in threads:
        thread.start()
    while sum(counts.values()) < 80:
        until(lambda: pending)
        name, end = pending.pop(0)
        clock.seconds += cost[name]
        end()
    stop.set()
    while any(thread.is_alive() for thread in threads):
        for _, end in pending:
            end()
        pending.clear()
        for thread in threads:
            thread.join(0.01)
    assert 2.4 < counts["quick"] / counts["slow"] < 3.6


# --- the benchmark ----------------------------------------------------------------------------------------------------

def test_bench_sessions_measures_each_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "measure", lambda load: load_test.measure(load_test.Load(**load)))  # in this process
    report = run_bench("sessions", Options(device="cpu", frame_path="device", backend="eager", layers="conv2d_2",
                                           rate=20, width=128, height=96, field_height=64, sessions=2, seconds=1.0))
    assert [row["session"] for row in report.rows] == [1, 2] and report.conditions["gpu_busy_percent"] is None
    for row in report.rows:
        assert row["field"] == 64 and row["dreams_per_s"] > 0 and 0 < row["shown_ratio"] <= 1.2 and not row["error"]
        assert 0 < row["latency_p50_ms"] <= row["latency_p95_ms"]


def test_sessions_that_cannot_run_are_one_line() -> None:
    with pytest.raises(StreamdreamError, match=r"the sessions failed: .*unknown layer"):
        run_bench("sessions", Options(device="cpu", layers="nonsense", width=128, height=96, seconds=0.1))
