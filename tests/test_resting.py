"""Engines that rest: they give their memory back and come again, whatever other threads do meanwhile."""
from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_auto import wait_for
from test_engines import MODEL, counted, spec

from streamdream import backends
from streamdream.backends import apart, auto, engine, resting
from streamdream.backends.auto import Auto
from streamdream.backends.openvino import OpenVino
from streamdream.backends.resting import Pool, Resting


@pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")
def test_engines_that_nobody_uses_give_their_memory_back(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are loaded again when they are wanted, or built when the cache was emptied meanwhile."""
    monkeypatch.setattr(resting, "IDLE_SECONDS", 0.1)
    backend, built = OpenVino(MODEL, "cpu", "fp32"), counted(monkeypatch)
    steps = [backend.compile(spec(width=width)) for width in (112, 128)]
    pictures = [engine.textured(torch.Size((1, 3, 96, width)), torch.device("cpu")) for width in (112, 128)]

    def turn() -> list[torch.Tensor]:
        found = []
        for step, picture in zip(steps, pictures, strict=True):
            found.append(step(picture, 0.02))
            time.sleep(0.2)
        return found

    first = turn()
    assert [held.awake for held in backend.in_memory.all()].count(True) == 1 and len(built) == 2
    for before, after in zip(first, turn(), strict=True):
        assert torch.equal(before, after)
    assert len(built) == 2
    for path in kept.iterdir():
        path.unlink()
    for before, after in zip(first, turn(), strict=True):
        assert torch.equal(before, after)
    assert len(list(kept.glob("*.engine"))) == 2 and [held.awake for held in backend.in_memory.all()].count(True) == 1


@pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")
def test_auto_goes_on_where_an_engine_does_not_come_back(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(auto, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(auto, "WORTH", 100.0)
    monkeypatch.setattr(apart, "NICENESS", 0)
    backend, picture = Auto(MODEL, "cpu", "fp32"), engine.textured(torch.Size((1, 3, 96, 112)), torch.device("cpu"))
    step = backend.compile(spec())
    expected = step(picture, 0.02)
    wait_for(backend, step, lambda: backend.name == "openvino")
    assert isinstance(backend._engines, OpenVino)
    for held in backend._engines.in_memory.all():
        held.rest(float("inf"))
    for path in kept.iterdir():
        path.unlink()
    monkeypatch.setattr(apart, "build", build)
    assert torch.equal(step(picture, 0.02), expected)
    assert backend.name == "eager" and "openvino failed (out of luck)" in backend.reason
    assert torch.equal(step(picture, 0.02), expected)


def test_an_engine_may_arrive_while_others_work() -> None:
    """They are loaded in threads of their own, and whoever dreams must not stumble over that."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    nothing: Any = int
    pool, over = Pool(), threading.Event()
    held: list[Resting] = []

    def arrive() -> None:
        while not over.is_set():
            held[:] = [Resting(nothing, nothing, pool) for _ in range(50)]

    thread = threading.Thread(target=arrive)
    thread.start()
    try:
        working = Resting(nothing, nothing, pool)
        for _ in range(20_000):
            assert working() == 0
    finally:
        sys.setswitchinterval(before)
        over.set()
        thread.join()
