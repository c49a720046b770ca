"""The live socket: pictures up and down, settings, the queue of visitors, and what is freed at the end."""
from __future__ import annotations

import base64
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.core.limits import RECONNECT_SECONDS
from streamdream_web.core.scheduler import FairScheduler
from streamdream_web.live.browser_io import HEADER
from streamdream_web.live.session import LiveSession
from streamdream_web.live.websocket import CLOSED_IDLE, CLOSED_TIME
from streamdream_web.pages import setting_controls
from support.alive import tracked
from support.live_sockets import close_code
from support.waiting import until
from support.web_client import Client, Running, ask, difference, running
from support.web_jobs import ManualClock
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from streamdream.dream.dreamer import Dreamer
from streamdream.live.pipeline import Live
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings
from streamdream.system.stats import rss_mb

STILL = {"keep": 0.0, "jitter": 0, "octaves": 1, "warmup_steps": 0, "step_size": 0.03, "layers": "mixed3"}
"""With these a dream is one step from the picture: always the same."""


CLOSE_1012 = b"\x88\x02\x03\xf4"
"""A close frame of a server, with its code."""


HELLO = Frame(Opcode.TEXT, b'{"type": "hello"}').serialize(mask=True)


@contextmanager
def raw_socket(web: Running, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """A live socket, of which nothing is read; ``receive_buffer`` is in bytes, 0 for that of the system."""
    with closing(socket.socket()) as raw:
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", web.port))
        headers = {"Host": f"127.0.0.1:{web.port}", "Origin": web.url, "Connection": "Upgrade", "Upgrade": "websocket",
                   "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode()}
        lines = ["GET /live HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        raw.sendall("\r\n".join(lines).encode())
        assert b" 101 " in raw.recv(4096)
        yield raw


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate()
            if thread.name.startswith(("streamdream-session", "streamdream-capture", "streamdream-dream"))]


def test_a_picture_is_dreamed_and_sent_back(web: Running, small: NDArray[np.uint8]) -> None:
    with Client(web) as client:
        welcome = client.welcome()
        assert welcome["model"] == welcome["values"]["model"] == "inception_v3"
        dreamed = client.settle(small, 6)
        assert dreamed.shape == small.shape and 3 < difference(dreamed, small) < 60
        assert client.word("stats")["field"] == 96
        until(lambda: client.word("stats")["dreams"] > 0)  # the first are from before the first dream


CHANGES: dict[str, Any] = {
    "layers": "mixed0", "channel": "3,5", "strength": 2.0, "steps": 3, "step_size": 0.08, "octaves": 3, "jitter": 40,
    "smooth": 0.0, "color": 0.0, "original_colors": True, "tv": 2.0, "l2": 2.0, "keep": 0.95,
    "palette": 0.0, "equalize": False}
MOVING = {"flow", "trust", "cut", "octave_scale", "warmup_steps", "style_weight", "style_layers",
          "stillness", "legibility", "consistency", "regrowth"}
"""They change how a dream moves, begins or looks with a style: tested where those are."""


def test_every_control_changes_the_picture(web: Running, small: NDArray[np.uint8]) -> None:
    assert CHANGES.keys() | MOVING == {item.name for item in setting_controls.fields()}
    with Client(web, STILL) as client:
        client.welcome()
        bare = client.dream(small)
        until(lambda: difference(client.dream(small), bare) > 1)
        usual = client.settle(small)
        assert difference(client.settle(small), usual) < 0.2
        for name, value in CHANGES.items():
            client.say(type="settings", values={name: value})
            assert client.word("settings")["values"][name] == value
            until(lambda: difference(client.dream(small), usual) > 0.3)
            client.say(type="settings", values={name: STILL.get(name, getattr(DreamSettings(), name))})
            client.word("settings")
            until(lambda: difference(client.dream(small), usual) < 0.2)


@pytest.mark.alone
def test_a_setting_applies_within_two_frames(web: Running, small: NDArray[np.uint8]) -> None:
    with Client(web, {"strength": 2.0}) as client:
        client.welcome()
        assert difference(client.settle(small, 6), small) > 5
        client.say(type="settings", values={"strength": 0})
        client.dream(small)
        assert difference(client.dream(small), small) < 2.5  # that of JPEG


def test_invalid_settings_are_refused_and_the_others_applied(web: Running, small: NDArray[np.uint8]) -> None:
    with Client(web, {"layers": "<script>alert(1)</script>", "steps": 2}) as client:
        assert client.welcome()["values"]["steps"] == 2
        assert "there is no layer" in client.word("refused")["message"]
        for values in ({"steps": 400}, {"guide": "/etc/passwd"}, {"mask": "x"}, {"nothing": 1}, {"keep": "much"},
                       {"keep": float("nan")}, {"layers": ",".join(["mixed0"] * 9)}, {"model": "bvlc_googlenet"},
                       {"model": "../secret"}):
            client.say(type="settings", values=values)
            refused = client.word("refused")
            assert refused["message"] and refused["values"]["guide"] == "" and refused["values"]["steps"] == 2
        assert client.dream(small).shape == small.shape


def test_a_frozen_picture_is_dreamed_on(web: Running, small: NDArray[np.uint8]) -> None:
    """The page goes on showing its own; what is dreamed meanwhile belongs to the one that was held."""
    with Client(web, STILL) as client:
        client.welcome()
        client.settle(small)
        held = client.added
        client.say(type="freeze", on=True)
        client.dream(small)
        client.settle(255 - small)
        assert difference(client.added, held) < 0.2
        client.say(type="freeze", on=False)
        client.settle(255 - small)
        assert difference(client.added, held) > 1


def test_only_the_residual_of_a_small_picture_is_sent(web: Running, lion: NDArray[np.uint8]) -> None:
    """What is looked at is small, and what comes back is that small; the page has the picture."""
    large: NDArray[np.uint8] = cv2().resize(lion, (1280, 720))
    with Client(web) as client:
        assert client.welcome()["lines"] == 96
        dreamed = client.settle(large, 3)
        assert client.added.shape == (96, 170, 3)
        fine = large.astype(int) - cv2().GaussianBlur(large, (0, 0), 2)
        kept = dreamed.astype(int) - cv2().GaussianBlur(dreamed, (0, 0), 2)
        assert np.corrcoef(fine.ravel(), kept.ravel())[0, 1] > 0.95  # as sharp as the camera


def test_a_larger_field_asks_for_more_lines(web: Running, small: NDArray[np.uint8],
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(web) as client:
        client.welcome()
        client.dream(small)
        monkeypatch.setattr(LiveSession, "field_height", 176)
        client.dream(small)
        assert client.word("lines")["lines"] == 176


def test_a_dropped_connection_resumes_its_dream(web: Running, small: NDArray[np.uint8]) -> None:
    client = Client(web, {"strength": 2.0})
    token = client.welcome()["session"]
    client.settle(small, 6)
    client.socket.socket.close()
    with Client(web, session=token, values={"strength": 2.0}) as back:
        word = back.welcome()
        assert word["resumed"] and word["session"] == token and word["values"]["strength"] == 2.0
        back.number = 1000
        assert difference(back.dream(small), small) > 5  # the first picture already


@pytest.mark.alone
@pytest.mark.parametrize("politely", [True, False])
def test_a_closed_tab_frees_everything_within_five_seconds(web: Running, small: NDArray[np.uint8],
                                                           politely: bool) -> None:
    until(lambda: not workers() and not web.waiting_room.sessions)
    client = Client(web)
    client.welcome()
    client.dream(small)
    assert workers() and web.app_state.active_sessions
    if politely:
        client.close()
    else:
        client.socket.socket.close()
    took = until(lambda: not workers() and not web.waiting_room.sessions and not web.app_state.active_sessions)
    assert took < (5.0 if RECONNECT_SECONDS < 4.5 else 0)


@pytest.mark.parametrize("visits", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_visits_leave_no_sessions_and_no_memory(web: Running, small: NDArray[np.uint8], visits: int) -> None:
    def visit() -> None:
        with Client(web) as client:
            client.welcome()
            client.dream(small)

    until(lambda: ask(web, "/readyz")[0] == 200, 60)  # it has warmed up, and frozen what is loaded
    with tracked(LiveSession, Live, Dreamer) as alive:
        for _ in range(8):
            visit()
        until(lambda: not workers() and not web.waiting_room.sessions)
        before = rss_mb()
        for _ in range(visits):
            visit()
        until(lambda: not workers() and not web.waiting_room.sessions)
        assert not web.waiting_room.queue and not web.app_state.active_sessions
        assert len(web.app_state._scheduler._held_seconds) <= 2
        until(lambda: alive() == [])
        assert rss_mb() - before < 20


def test_a_visitor_beyond_the_limit_waits_and_takes_over(small: NDArray[np.uint8]) -> None:
    with running(max_sessions=1, idle_seconds=1.5, session_seconds=3.0) as web:
        first, second = Client(web), None
        first.welcome()
        second, third = Client(web, {"steps": 2}), Client(web)
        assert second.word("waiting")["place"] == 0 and third.word("waiting")["place"] == 1
        first.close()
        assert second.welcome()["values"]["steps"] == 2 and third.word("waiting")["place"] == 0
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:  # others wait, so its time is limited
            while time.monotonic() < began + 15:
                second.dream(small)
        assert closed.value.rcvd and closed.value.rcvd.code == CLOSED_TIME
        third.welcome()
        with pytest.raises(ConnectionClosed) as closed:  # it sends nothing
            while True:
                third.hear()
        assert closed.value.rcvd and closed.value.rcvd.code == CLOSED_IDLE


def test_the_queue_says_when_a_place_is_free_at_the_latest(web: Running) -> None:
    """While others wait a session ends after 1800 s; the third in the queue waits for the end of the first one's."""
    until(lambda: not web.waiting_room.sessions)
    with ExitStack() as open_clients:
        def enter() -> Client:
            return open_clients.enter_context(Client(web))

        for client in [enter() for _ in range(web.app_state.web.max_sessions)]:
            client.welcome()
        oldest, second, *_ = web.waiting_room.sessions.values()
        oldest.started_at -= 1500
        second.started_at -= 1000
        waits = [enter().word("waiting")["seconds"] for _ in range(web.app_state.web.max_sessions + 1)]
        assert waits[:2] == [300, 800] and set(waits[2:-1]) == {1800} and waits[-1] == 300 + 1800


@pytest.mark.alone
def test_four_sessions_share_the_device(web: Running, small: NDArray[np.uint8]) -> None:
    counts, dreams = [0] * 4, [0] * 4
    stop = threading.Event()

    def visit(place: int) -> None:
        with Client(web) as client:
            client.welcome()
            client.dream(small)
            while not stop.is_set():
                client.dream(small)
                counts[place] += 1
                for word in client.words:
                    dreams[place] = word.get("dreams", dreams[place])
                client.words.clear()

    threads = [threading.Thread(target=visit, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: min(dreams) >= 8, 120)  # one that starves never has so many
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert max(dreams) <= 3 * min(dreams)  # the exact share is the next test's
    assert max(counts) <= 4 * min(counts)


def share(scheduler: FairScheduler, clock: ManualClock, slot_seconds: dict[str, float], slot_count: int
          ) -> dict[str, float]:
    """Seconds that each client held the device, when all of them always want it."""
    held, stop, number = dict.fromkeys(slot_seconds, 0.0), threading.Event(), itertools.count(1)

    def work(client_id: str) -> None:
        while not stop.is_set():
            with scheduler.device_slot(client_id):
                while scheduler.waiting < len(held) - 1 and not stop.is_set():
                    time.sleep(0.0005)
                clock.seconds += slot_seconds[client_id]
                held[client_id] += slot_seconds[client_id]
                if next(number) >= slot_count:
                    stop.set()

    threads = [threading.Thread(target=work, args=(client_id,)) for client_id in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return held


def test_the_scheduler_shares_by_time_not_by_number() -> None:
    """A client that holds the device three times as long each time gets it a third as often."""
    clock = ManualClock()
    held = share(FairScheduler(clock), clock, {"quick": 0.005, "slow": 0.015}, 200)
    assert 0.9 < held["quick"] / held["slow"] < 1.1


def test_a_rare_client_gives_a_new_one_no_advantage() -> None:
    clock = ManualClock()
    scheduler = FairScheduler(clock)
    with scheduler.device_slot("rare"):
        pass
    assert share(scheduler, clock, {"first": 0.005}, 200)["first"] == pytest.approx(1)
    with scheduler.device_slot("rare"):
        pass
    held = share(scheduler, clock, {"first": 0.005, "second": 0.005}, 100)
    assert 0.9 < held["first"] / held["second"] < 1.1


def test_the_time_of_use_is_counted_once_also_while_the_device_is_in_use() -> None:
    clock = ManualClock()
    scheduler = FairScheduler(clock)
    clock.seconds += 5  # nobody uses it
    with scheduler.device_slot("one") as use:
        clock.seconds += 1
        assert scheduler.used_seconds == 1
        end_first = use.extend()
    clock.seconds += 2  # the device goes on with it
    with scheduler.device_slot("two") as use:
        end_second = use.extend()
        clock.seconds += 4
        end_first()
    assert scheduler.used_seconds == 7
    end_second()
    clock.seconds += 8
    assert scheduler.used_seconds == 7
    with scheduler.device_slot("three"):
        clock.seconds += 16
    assert scheduler.used_seconds == 23


def test_a_stopping_server_closes_sockets_with_its_code(small: NDArray[np.uint8]) -> None:
    with running() as web:
        client = Client(web)
        client.welcome()
        client.dream(small)
        web.server.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.hear()
        assert closed.value.rcvd and closed.value.rcvd.code == 1012
    assert not web.app_state.folder.exists()


def test_a_stopping_server_does_not_reset_the_socket_of_a_camera_that_still_sends() -> None:
    """A browser whose send fails does not read why the server has closed."""
    with running() as web, raw_socket(web) as camera:
        frame = Frame(Opcode.BINARY, bytes(20_000)).serialize(mask=True)
        camera.sendall(HELLO + frame)
        web.server.should_exit = True
        said = b""
        while CLOSE_1012 not in said:
            said += camera.recv(65536)
        for _ in range(3):  # before the browser has read that
            camera.sendall(frame)
            time.sleep(0.05)
        camera.sendall(Frame(Opcode.CLOSE, CLOSE_1012[2:]).serialize(mask=True))
        while camera.recv(65536):
            pass


def test_a_client_that_closes_and_does_not_read_holds_up_no_stopping_server(small: NDArray[np.uint8]) -> None:
    with running() as web:
        web.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with raw_socket(web, 2048) as silent, Client(web) as client:
            client.welcome()
            silent.sendall(HELLO)
            until(lambda: len(web.waiting_room.sessions) == 2)
            noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
            jpeg = cv2().imencode(".jpg", noise)[1].tobytes()
            for number in range(1, 40):
                silent.sendall(Frame(Opcode.BINARY, HEADER.pack(number, 0) + jpeg).serialize(mask=True))
                time.sleep(0.02)
            silent.sendall(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
            until(lambda: any(each.transport.is_closing() for each in web.server.server_state.connections))
            web.server.should_exit = True
            assert close_code(client) == 1012
        until(lambda: not web.app_state.folder.exists())  # it has ended in order
