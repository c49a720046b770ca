"""Settings over the live socket: merged, bounded, explained; octaves that do not fit; totals."""
from __future__ import annotations

import inspect

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.core.limits import MAX_SETTING_CHARACTERS
from streamdream_web.core.rate_limit import TokenBucket
from streamdream_web.core.state import AppState
from streamdream_web.live.pending_settings import NAMES, PendingSettings
from streamdream_web.live.session import LiveSession
from streamdream_web.live.websocket import CLOSED_RULES
from streamdream_web.pages import layers, live, video
from streamdream_web.server.metrics import Collector
from support.waiting import until
from support.web_client import Client, Running
from websockets.exceptions import ConnectionClosed

from streamdream import models
from streamdream.automation.controls import Controls
from streamdream.dream.octaves import fitting_octaves
from streamdream.errors import SettingsError
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

DEEP = {"layers": "mixed5", "octaves": 6, "octave_scale": 2.0}
"""The layer needs 43 lines; on a field of 96 there is room for two such octaves."""


# --- what waits to be checked


def test_pending_settings_hold_one_value_for_each_known_name() -> None:
    pending = PendingSettings()
    for number in range(1000):
        too_long = "x" * (MAX_SETTING_CHARACTERS + 1)
        pending.add({f"unknown {number}": 1, "strength": number, "layers": too_long, "keep": [1, 2]})
    batch = pending.take()
    assert batch.values == {"strength": 999} and batch.messages == 1000 and batch.values.keys() <= NAMES
    assert len(batch.problems) == 3 and sum(map(len, batch.problems)) < 300
    assert pending.take().values == {}


def test_unknown_settings_are_reported_once() -> None:
    pending = PendingSettings()
    pending.add({"y" * 5000: 1})
    assert "yyy" in pending.take().problems[0]
    pending.add({"another": 1})
    assert pending.take().problems == []


@pytest.mark.parametrize("value", [10**400, "9" * 400, -10**20], ids=["number", "text", "negative"])
@pytest.mark.parametrize("name", ["steps", "strength"])
def test_huge_numbers_are_an_error(name: str, value: object) -> None:
    with pytest.raises(SettingsError):
        Controls(DreamSettings()).change({name: value})


def test_a_token_bucket_gives_its_rate() -> None:
    now = [0.0]
    bucket = TokenBucket(rate=10, burst=5, clock=lambda: now[0])
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 0.1
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 100
    assert sum(bucket.take() for _ in range(20)) == 5


# --- over the socket


def test_settings_in_quick_succession_are_checked_together(web: Running) -> None:
    with Client(web) as client:
        client.welcome()
        for number in range(100):
            client.say(type="settings", values={"strength": 1 + number / 100, "keep": 0.5 + number / 1000})
        answers: list[dict[str, object]] = []
        while sum(int(str(answer["answers"])) for answer in answers) < 100:
            answers.append(client.word("settings"))
        assert len(answers) < 50
        values = answers[-1]["values"]
        assert isinstance(values, dict) and (values["strength"], values["keep"]) == (1.99, 0.599)


def test_valid_settings_of_a_message_are_applied(web: Running) -> None:
    with Client(web) as client:
        client.welcome()
        client.say(type="settings", values={"layers": "nonsense", "steps": 400, "strength": 1.25, "guide": "/etc/x"})
        refused = client.word("refused")
        assert refused["values"]["strength"] == 1.25 and refused["values"]["guide"] == ""
        assert refused["answers"] == 1 and "--" not in refused["message"]


def test_an_unknown_layer_is_explained_without_a_shell(web: Running) -> None:
    with Client(web) as client:
        client.welcome()
        client.say(type="settings", values={"layers": "mixed77"})
        message = client.word("refused")["message"]
        assert "mixed77" in message and "streamdream" not in message and "--" not in message


def test_too_many_messages_end_the_connection(web: Running) -> None:
    with Client(web) as client:
        client.welcome()
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(5000):
                client.say(type="settings", values={"strength": 1})
            while True:
                client.hear()
        assert closed.value.rcvd and closed.value.rcvd.code == CLOSED_RULES


# --- what does not fit the field


def test_octaves_are_fitted_to_the_picture() -> None:
    model, dream = models.get("inception_v3"), DreamSettings(layers="mixed5", octaves=6, octave_scale=2)
    assert [fitting_octaves(model, dream, size) for size in ((480, 640), (96, 128), (96, 54), (40, 40))] == [4, 2, 1, 0]


def test_octaves_that_do_not_fit_are_left_out_at_the_start(web: Running, small: NDArray[np.uint8]) -> None:
    with Client(web, DEEP) as client:
        assert client.welcome()["values"]["octaves"] == 2
        message = client.word("refused")["message"]
        assert "6 octaves" in message and "2 are dreamed" in message and "--" not in message
        client.settle(small)  # two dreams: each octave has had its turn


def test_octaves_that_do_not_fit_a_portrait_picture_are_left_out(web: Running, small: NDArray[np.uint8]) -> None:
    portrait: NDArray[np.uint8] = cv2().resize(small, (54, 96))
    with Client(web, DEEP | {"octaves": 2}) as client:
        assert client.welcome()["values"]["octaves"] == 2
        client.dream(portrait)
        assert "1 is dreamed" in client.word("refused")["message"]
        client.settle(portrait)


def test_many_octaves_do_not_enlarge_the_first_field() -> None:
    """A slow machine could not dream on a larger one in time: the octaves without room wait until it grows."""
    app_state = AppState(WebSettings(), DreamSettings(), StreamSettings(field_height=480))
    try:
        session = LiveSession(app_state, "", lambda message: None, lambda error: None)
        assert session.field_height == 144
        assert session.change(DEEP | {"octaves": 3}) == [] and session.field_height == 144
        assert session.change({"octaves": 6})[0].startswith("6 octaves") and session.controls.current().octaves == 4
        assert session.field_height == 144
    finally:
        app_state.close()


def test_the_end_of_a_dream_is_explained(web: Running) -> None:
    with Client(web, {"layers": "mixed5", "octaves": 1}) as client:
        client.welcome()
        tiny = np.full((32, 32, 3), 128, np.uint8)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.push(tiny)
                client.hear()
        message = client.word("error")["message"]
        assert "too small for mixed5" in message and "--" not in message and message.endswith("pictures")
        assert closed.value.rcvd and closed.value.rcvd.code == 4000


# --- the event loop


def test_routes_that_read_the_disk_are_not_on_the_event_loop(web: Running) -> None:
    """Those that are wait for a visitor's body, or do nothing at all."""
    routes = [*live.routes(web.jobs_service), *video.routes(web.jobs_service), *layers.routes(web.jobs_service)]
    on_the_loop = {route.path for route in routes if inspect.iscoroutinefunction(route.endpoint)}
    assert on_the_loop == {"/uploads", "/uploads/{token}"}


# --- totals


def test_totals_count_a_session_once(web: Running, small: NDArray[np.uint8]) -> None:
    """Read at the moment at which a session's end is about to be told."""
    collector = Collector(web.app_state, web.waiting_room)

    def frames() -> float:
        return float(next(family.samples[0].value for family in collector.collect()
                          if family.name == "streamdream_frames"))

    with Client(web) as client:
        client.welcome()
        for _ in range(5):
            client.dream(small)
        session = web.waiting_room.sessions[client.token]
        tell, seen = session._ended, list[float]()

        def ended(error: str) -> None:
            seen.append(frames())
            tell(error)

        session._ended = ended
    until(lambda: client.token not in web.waiting_room.sessions)
    assert seen == [frames()] and seen[0] >= 5
