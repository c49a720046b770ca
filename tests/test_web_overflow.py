"""Live dreams on two replicas: who would wait at one goes to the other, if that has room."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.core.kept_folder import join_folder
from streamdream_web.core.replica_loads import FRESH_SECONDS, ReplicaLoad, ReplicaLoads
from streamdream_web.live import overflow
from support.live_sockets import close_code, cookie, refusal
from support.waiting import until
from support.web_client import Client, Running, ask, running
from support.web_jobs import ManualClock


@pytest.fixture()
def begin(tmp_path: Path) -> Iterator[Any]:
    """Begin replicas, each with one live dream."""
    with ExitStack() as stack:
        def start(**flags: Any) -> Running:
            shared = {"shared_folder": str(tmp_path / "shared")}
            web = stack.enter_context(running(**{"max_sessions": 1, **shared, **flags}))
            until(lambda: ask(web, "/readyz")[0] == 200)
            return web

        yield start


@pytest.fixture()
def _long_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that outlast the test, on a slow machine too."""
    monkeypatch.setattr(overflow, "CLAIM_SECONDS", 60.0)


def knows(web: Running, free: int, dreaming: int = 0) -> None:
    """Wait until a replica knows so much room, and so many visitors, elsewhere."""
    def is_known() -> bool:
        loads = web.app.overflow._loads.fresh()
        return (sum(load.free for load in loads), sum(len(load.visitors) for load in loads)) == (free, dreaming)

    until(is_known)


def loads_told(web: Running) -> int:
    """How often a replica has told the others its load."""
    assert web.app_state.replica
    try:
        return int(json.loads(web.app_state.replica.load_file.read_text())["number"])
    except OSError:
        return 0


def test_a_visitor_is_passed_on_to_the_replica_with_room_and_stays_there(begin: Any, small: NDArray[np.uint8]) -> None:
    first, second = begin(), begin()
    knows(first, 1)
    with Client(first, **cookie("a")) as one:
        one.welcome()
        answer = refusal(first, **cookie("b"))
        assert answer.status_code == 503 and b"another server has room" in answer.body
        with Client(second, **cookie("b")) as two:
            two.welcome()
            two.dream(small)
            knows(first, 0, 1)
            two.socket.socket.close()  # the network is lost for a moment; the proxy asks the first one again
            assert refusal(first, **cookie("b")).status_code == 503
            with Client(second, session=two.token, **cookie("b")) as again:
                assert again.welcome()["resumed"]
        one.close()
        until(lambda: not first.waiting_room.sessions)
        with Client(first, **cookie("b")) as here:
            here.welcome()


@pytest.mark.usefixtures("_long_claims")
def test_who_comes_back_is_taken_and_waits_where_no_replica_has_room(begin: Any) -> None:
    first, second = begin(), begin()
    knows(first, 1)
    with Client(first, **cookie("a")) as one, Client(second, **cookie("b")) as two:
        one.welcome()
        assert refusal(first, **cookie("c")).status_code == 503  # it does not know yet that the room is gone
        two.welcome()
        with Client(first, **cookie("c")) as three:
            assert three.word("waiting")["place"] == 0
            knows(first, 0, 1)
            with Client(first, **cookie("d")) as four:
                assert four.word("waiting")["place"] == 1
            one.close()
            three.welcome()


def test_who_waits_moves_to_a_replica_that_gets_room_once(begin: Any) -> None:
    first, second = begin(), begin()
    with Client(second, **cookie("b")) as two, Client(first, **cookie("a")) as one:
        two.welcome()
        one.welcome()
        knows(first, 0, 1)
        with Client(first, **cookie("c")) as three, Client(first, **cookie("d")) as four:
            for waiting in (three, four):
                waiting.word("waiting")
            two.close()
            assert close_code(three) == 1012
            assert refusal(first, **cookie("c")).status_code == 503
            with Client(first, **cookie("c")) as again:  # the other one was taken meanwhile
                assert again.word("waiting")["place"] == 1
                assert close_code(four) == 1012  # a place that nobody has taken is free again
                assert refusal(first, **cookie("d")).status_code == 503
                assert again.word("waiting")["place"] == 0  # nobody is moved twice
            assert first.app_state.counts["passed on"] == 2


@pytest.mark.usefixtures("_long_claims")
def test_a_newcomer_does_not_get_the_place_of_whoever_is_moved(begin: Any) -> None:
    first, second = begin(), begin()
    with Client(second, **cookie("b")) as two, Client(first, **cookie("a")) as one:
        two.welcome()
        one.welcome()
        knows(first, 0, 1)
        with Client(first, **cookie("c")) as three:
            three.word("waiting")
            two.close()
            assert close_code(three) == 1012
            with Client(first, **cookie("d")) as newcomer:
                newcomer.word("waiting")
                assert refusal(first, **cookie("c")).status_code == 503
                with Client(second, **cookie("c")) as moved:
                    moved.welcome()


@pytest.mark.usefixtures("_long_claims")
def test_an_address_at_its_limit_goes_to_another_replica_and_takes_no_place_of_others(begin: Any) -> None:
    first, second = begin(max_sessions=2, sessions_per_address=1), begin(max_sessions=2, sessions_per_address=1)
    knows(first, 2)
    with Client(first, **cookie("a")) as one, Client(second, **cookie("b")) as two:
        one.welcome()
        assert refusal(first, **cookie("c")).status_code == 503
        two.welcome()
        knows(first, 1, 1)
        with Client(first, **cookie("c")) as three:
            three.word("waiting")
            knows(second, 1, 1)


def test_a_replica_without_a_live_tab_has_no_room(begin: Any) -> None:
    first, _ = begin(), begin(tabs="video,picture")
    with Client(first, **cookie("a")) as one:
        one.welcome()
        until(lambda: loads_told(first) > 2)
        with Client(first, **cookie("c")) as three:
            three.word("waiting")


def test_a_replica_that_is_silent_drains_or_is_broken_gets_nobody(tmp_path: Path) -> None:
    clock = ManualClock()
    first, second = join_folder(tmp_path / "shared"), join_folder(tmp_path / "shared")
    here, there = ReplicaLoads(first, clock), ReplicaLoads(second, clock)
    there.exchange(ReplicaLoad(2, frozenset({"b"})))
    for _ in range(2):
        here.exchange(ReplicaLoad())
        assert here.fresh() == [ReplicaLoad(2, frozenset({"b"}))]
        clock.seconds += FRESH_SECONDS - 1
    clock.seconds += 1
    assert not here.fresh()
    there.exchange(ReplicaLoad(1))
    here.exchange(ReplicaLoad())
    assert here.fresh() == [ReplicaLoad(1)]
    for broken in ("", "{", "[]", '{"free": "many", "visitors": []}', '{"free": 1}'):
        second.load_file.write_text(broken)
        here.exchange(ReplicaLoad())
        assert not here.fresh()
    second.close()
    assert [path.stem for path in first.load_file.parent.glob("*.load")] == [first.name]
    for suffix in (".load", ".partial"):  # of one that was killed
        first.load_file.with_name("0" * 16 + suffix).touch()
    first.remove_abandoned(set())
    assert [path.name for path in first.load_file.parent.iterdir() if path.suffix != ".lock"] == [first.load_file.name]


def test_a_server_alone_passes_nobody_on(web: Running) -> None:
    assert not web.app.overflow.passes_on("a", "127.0.0.1")
