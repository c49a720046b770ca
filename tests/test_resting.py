"""Engines that rest: they give their memory back and come again, whatever other threads do meanwhile."""
from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engines import MODEL, counted, spec

from streamdream import backends
from streamdream.backends import engine, resting
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
