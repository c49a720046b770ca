"""The backend ``auto``: it dreams at once, builds engines in other processes, and keeps what measures faster."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.commands import ENVIRONMENT, PROGRAM_ENVIRONMENT, here
from support.engines import MODEL, builders, spec, step_once, wait_for
from support.waiting import until

from streamdream import backends
from streamdream.backends import auto, build_process, engine, engine_cache, graph, trial
from streamdream.backends.auto import Auto
from streamdream.backends.engine import EngineRequest
from streamdream.backends.engine_cache import Timing
from streamdream.backends.evictable import LoadedEngine
from streamdream.backends.openvino import OpenVino
from streamdream.errors import EngineError

pytestmark = pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")


@pytest.fixture()
def build_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "BUILD_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(build_process, "NICENESS", 0)  # tests have no time


@pytest.fixture(scope="module")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the engine of ``spec()``."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMDREAM_CACHE", str(folder))
        step_once()
    return folder


@pytest.fixture()
def kept_engine(kept: Path, engine_folder: Path) -> Path:
    """The folder that engines go to; it holds the one of ``spec()``."""
    shutil.copytree(engine_folder, kept.parent, dirs_exist_ok=True)
    return kept


def test_auto_dreams_at_once_builds_in_another_process_and_measures_both(kept: Path, build_at_once: None,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing here waits for the engine; the next run takes it, and builds nothing."""
    def build(*_: object, **__: object) -> None:
        raise AssertionError("built here")

    monkeypatch.setattr(graph, "build", build)
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    step(engine.natural_noise(torch.Size((1, 3, 96, 112)), torch.device("cpu")), 0.02)
    assert backend.name == "eager" and engine_cache.list_engines() == []
    wait_for(backend, step, lambda: "is used now" in backend.reason)
    assert backend.name in ("eager", "openvino") and len(engine_cache.list_engines()) == 1
    assert f"{backend.name} is used now" in backend.reason and "ms a step of 112x96" in backend.reason
    monkeypatch.setattr(build_process, "build_in_subprocess", build)
    monkeypatch.setattr(auto, "BUILD_AFTER_SECONDS", 1e9)
    backend = Auto(MODEL, "cpu", "fp32")
    wait_for(backend, backend.compile(spec()), lambda: "is used now" in backend.reason)


@pytest.mark.parametrize("winner", ["eager", "openvino"])
def test_auto_keeps_what_measured_faster(kept_engine: Path, build_at_once: None, winner: str,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """With either, the step is the same as eager's."""
    monkeypatch.setattr(trial, "MAX_TIME_RATIO", 100.0 if winner == "openvino" else 0.0)
    picture = engine.natural_noise(torch.Size((1, 3, 96, 112)), torch.device("cpu"))
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    expected = backends.create("eager", MODEL, "cpu", "fp32").compile(spec())(picture, 0.02)
    wait_for(backend, step, lambda: "is used now" in backend.reason)
    assert backend.name == winner
    assert engine.cosine(step(picture, 0.02) - picture, expected - picture) > 0.999


def test_auto_stays_eager_when_an_engine_cannot_be_built(kept: Path, build_at_once: None,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise RuntimeError("out of luck\nat line 7")

    monkeypatch.setattr(OpenVino, "build_engine", load)
    backend = Auto(replace(MODEL, name="mine"), "cpu", "fp32")  # of a network that only this process has
    step = backend.compile(spec())
    wait_for(backend, step, lambda: "openvino failed (out of luck)" in backend.reason)
    assert backend.name == "eager"


def test_a_failed_engine_affects_its_size_only(kept: Path, build_at_once: None,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def build(self: OpenVino, request: EngineRequest) -> LoadedEngine:
        requested.append(request.spec.width)
        if request.spec.width != 112:
            raise RuntimeError("out of luck")
        return LoadedEngine(lambda picture, *rest: picture, 1)

    monkeypatch.setattr(OpenVino, "build_out_of_process", build)
    monkeypatch.setattr(trial, "MAX_TIME_RATIO", 100.0)
    backend = Auto(MODEL, "cpu", "fp32")

    steps = {width: backend.compile(spec(width=width)) for width in (112, 120, 128)}

    def run_until(width: int, text: str) -> None:
        wait_for(backend, steps[width], lambda: text in backend.reason, width)

    run_until(120, "eager at 120x96, as openvino failed (out of luck)")
    assert backend.name == "eager"
    run_until(112, "openvino is used now")
    run_until(128, "eager at 128x96, as openvino failed (out of luck)")
    assert backend.name == "openvino"
    assert requested == [120, 112, 128]  # each once


def test_a_new_engine_is_timed_before_the_next_is_built(kept: Path, build_at_once: None,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """A build beside it would disturb the timing."""
    requested = []

    def build(self: OpenVino, request: EngineRequest) -> LoadedEngine:
        requested.append(request.spec.width)
        return LoadedEngine(lambda picture, *rest: picture, 1)

    monkeypatch.setattr(OpenVino, "build_out_of_process", build)
    backend = Auto(MODEL, "cpu", "fp32")
    first, second = (backend.compile(spec(width=width)) for width in (112, 120))
    wait_for(backend, first, lambda: requested == [112])
    steps = iter(range(5))
    wait_for(backend, second, lambda: next(steps, None) is None, 120)
    assert requested == [112]
    wait_for(backend, first, lambda: "is used now" in backend.reason)
    wait_for(backend, second, lambda: requested == [112, 120], 120)


@pytest.mark.parametrize(("ratio", "winner"), [(0.5, "openvino"), (2.0, "eager"), (1.05, "")])
def test_the_next_run_takes_a_clear_winner_without_timing(ratio: float, winner: str, kept_engine: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Timing] = []

    def time_alternately(tried: trial.Trial, picture: torch.Tensor, *rest: object) -> torch.Tensor:
        tried.timing = Timing(0.01, 0.01 * ratio)
        taken.append(tried.timing)
        return picture

    monkeypatch.setattr(trial.Trial, "time_alternately", time_alternately)
    for expected in (1, 1 if winner else 2):
        backend = Auto(MODEL, "cpu", "fp32")
        wait_for(backend, backend.compile(spec()), lambda: "is used now" in backend.reason)  # noqa: B023
        assert len(taken) == expected and backend.name == (winner or "eager")


def test_auto_stays_eager_when_the_builder_dies(kept: Path, build_at_once: None) -> None:
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    wait_for(backend, step, lambda: bool(builders(os.getpid())))
    for child in builders(os.getpid()):
        os.kill(child, signal.SIGKILL)
    wait_for(backend, step, lambda: "openvino failed (the process that built the engine has died)" in backend.reason)
    assert backend.name == "eager" and not builders(os.getpid())


def request(width: int, model: str = "inception_v3") -> build_process.BuildRequest:
    return build_process.BuildRequest("openvino", model, "cpu", "fp32", 1, spec(width=width), (1, 3, 96, width), (),
                                      time.time())


@pytest.mark.soak
def test_a_build_process_reports_its_error_and_ends(kept: Path, build_at_once: None) -> None:
    with pytest.raises(EngineError, match="no_such_net"):
        build_process.build_in_subprocess(request(112, "no_such_net"))
    build_process.build_in_subprocess(request(112))
    assert len(list(kept.glob("*.engine"))) == 1 and not builders(os.getpid())


def test_a_builder_has_the_lowest_priority(kept: Path, build_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same session: among sessions, Linux shares the processors out evenly, however low the priority."""
    monkeypatch.setattr(build_process, "NICENESS", 19)
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    wait_for(backend, step, lambda: 19 in [os.getpriority(os.PRIO_PROCESS, child) for child in builders(os.getpid())])
    [child] = builders(os.getpid())
    assert os.getsid(child) == os.getsid(0) and os.getpgid(child) == child
    build_process.cancel()
    wait_for(backend, step, lambda: not builders(os.getpid()))


PARENT = """
from support.engines import MODEL, builders, spec, step_once, wait_for
from streamdream.backends import auto
auto.BUILD_AFTER_SECONDS = 0.0
backend = auto.Auto(MODEL, "cpu", "fp32")
wait_for(backend, backend.compile(spec()), lambda: False)
"""


def test_a_builder_ends_with_its_parent(kept: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT],
                              env=PROGRAM_ENVIRONMENT | {"STREAMDREAM_CACHE": str(kept.parent)})
    try:
        until(lambda: bool(builders(parent.pid)), 60)
        [child] = builders(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: child not in builders(), 30)


def test_a_live_run_ends_while_its_engine_is_built(tmp_path: Path) -> None:
    """Cleanly, and the builder with it."""
    command = [sys.executable, "-m", "streamdream", "live", "--source", "lavfi:testsrc2=size=160x96:rate=30", "--sink",
               "null", "--backend", "openvino", "--layers", "mixed0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=ENVIRONMENT | {"STREAMDREAM_CACHE": str(tmp_path)})
    try:
        until(lambda: bool(builders(process.pid)) or process.poll() is not None, 60)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "openvino" in output and "error" not in errors, errors
    assert not builders(process.pid)


def test_a_short_run_builds_nothing(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", "lavfi:testsrc=size=96x72:d=0.4", "-o", tmp_path / "a.mp4", "--json")
    report = json.loads(result.stdout)
    assert report["backend"] == "eager" and "not all steps of this run are timed" in report["reason"]
    assert not kept.exists()
