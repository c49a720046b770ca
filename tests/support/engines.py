"""Engines of a small step, and ways to watch them being built."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from streamdream import models
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import Objective
from streamdream.ascent.terms import Activations
from streamdream.backends import StepSpec, cached_engine, engine
from streamdream.backends.auto import Auto
from streamdream.backends.openvino import OpenVino
from streamdream.models import Model
from streamdream.settings_parsing import parse_layers

MODEL = models.get("inception_v3")


def spec(layer: str = "conv2d_4", width: int = 112) -> StepSpec:
    return StepSpec(Objective(((Activations(parse_layers(layer)), 1.0),)), 96, width, GradientShape(1.0, 0.4))


def step_once(model: Model = MODEL, precision: str = "fp32", wanted: StepSpec | None = None, batch: int = 1
              ) -> torch.Tensor:
    """One step by a backend of its own, as a new run would make it."""
    wanted = wanted or spec()
    picture = engine.natural_noise(torch.Size((batch, 3, wanted.height, wanted.width)), torch.device("cpu"))
    return OpenVino(model, "cpu", precision).compile(wanted)(picture, 0.02)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry whenever an engine is built."""
    built: list[str] = []
    monkeypatch.setattr(
        cached_engine.log, "info", lambda text, *rest: built.append(text) if "building" in text else None
    )
    return built


def wait_for(auto_backend: Auto, step: Any, done: Callable[[], bool], width: int = 112) -> None:
    """Take steps until it is done. Between them the processor is for the process that builds."""
    picture = engine.natural_noise(torch.Size((1, 3, 96, width)), torch.device("cpu"))
    deadline = time.monotonic() + 120
    while not done() and time.monotonic() < deadline:
        step(picture, 0.02)
        time.sleep(0.03)
    assert done()


def builders(parent: int = 0) -> list[int]:
    """Processes that build for that one, or for any."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, status = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()
            if b"streamdream.backends.build_worker" in command and int(status[1]) == (parent or int(status[1])):
                found.append(int(path.name))
    return found
