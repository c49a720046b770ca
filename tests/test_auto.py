"""What ``auto`` makes of engines, and the processes that build them."""
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import ENVIRONMENT, PROGRAM_ENVIRONMENT, here
from support.engines import MODEL, spec, wait_for
from support.waiting import until

from streamdream import backends
from streamdream.backends import StepSpec, auto, build_process, engine, engine_cache, graph
from streamdream.backends.auto import Auto
from streamdream.backends.openvino import OpenVino
from streamdream.errors import EngineError

pytestmark = pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")


@pytest.fixture()
def eager_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(build_process, "NICENESS", 0)  # tests have no time


def test_auto_dreams_at_once_and_measures_both(kept: Path, eager_to_build: None) -> None:
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    begin = time.monotonic()
    step(engine.natural_noise(torch.Size((1, 3, 96, 112)), torch.device("cpu")), 0.02)
    assert time.monotonic() - begin < 2  # an engine takes longer
    wait_for(backend, step, lambda: "goes on" in backend.reason)
    assert backend.name in ("eager", "openvino")
    assert f"{backend.name} goes on" in backend.reason and "ms a step of 112x96" in backend.reason


@pytest.mark.parametrize("winner", ["eager", "openvino"])
def test_auto_keeps_what_measured_faster(kept: Path, eager_to_build: None, winner: str,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever wins, no step is another than eager's."""
    monkeypatch.setattr(auto, "MAX_TIME_RATIO", 100.0 if winner == "openvino" else 0.0)
    backend, picture = (
        Auto(MODEL, "cpu", "fp32"),
        engine.natural_noise(torch.Size((1, 3, 96, 112)), torch.device("cpu")),
    )
    step = backend.compile(spec())
    expected = step(picture, 0.02)
    wait_for(backend, step, lambda: "goes on" in backend.reason)
    assert backend.name == winner
    assert engine.cosine(step(picture, 0.02) - picture, expected - picture) > 0.999


def test_auto_goes_on_where_an_engine_cannot_be_built(kept: Path, eager_to_build: None,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise RuntimeError("out of luck\nat line 7")

    monkeypatch.setattr(OpenVino, "build_engine", load)
    backend = Auto(replace(MODEL, name="mine"), "cpu", "fp32")  # of a network that only this process has
    step = backend.compile(spec())
    wait_for(backend, step, lambda: "openvino failed (out of luck)" in backend.reason)
    assert backend.name == "eager"


def test_an_engine_that_fails_is_one_size_s_affair(kept: Path, eager_to_build: None,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other sizes are built and go on, until so many failed in a row that no more are worth the trying."""
    prepare, asked = OpenVino.build_out_of_process, []

    def prepare_some(self: OpenVino, wanted: StepSpec, *given: Any) -> tuple[Any, float]:
        asked.append(wanted.width)
        if wanted.width != 112:
            raise RuntimeError("out of luck")
        return prepare(self, wanted, *given)[0], 0.0

    monkeypatch.setattr(OpenVino, "build_out_of_process", prepare_some)
    monkeypatch.setattr(auto, "MAX_TIME_RATIO", 100.0)
    backend = Auto(MODEL, "cpu", "fp32")

    def try_it(width: int, until: str) -> None:
        wait_for(backend, backend.compile(spec(width=width)), lambda: until in backend.reason, width)

    step = backend.compile(spec())
    try_it(120, "eager at 120x96, as openvino failed (out of luck)")
    assert backend.name == "eager"
    wait_for(backend, step, lambda: "openvino goes on" in backend.reason)
    for width in (120, 128, 136):
        try_it(width, f"eager at {width}x96, as openvino failed (out of luck)")
    wait_for(backend, step, lambda: True)
    assert backend.name == "openvino"
    steps = iter(range(10))
    wait_for(backend, backend.compile(spec(width=144)), lambda: next(steps, None) is None, 144)
    assert asked == [120, 112, 120, 128, 136]


def test_what_engines_saved_pays_for_further_ones(kept: Path, eager_to_build: None,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Where eager alone would have to take so long at each size."""
    asked = []

    def prepare(self: OpenVino, wanted: StepSpec, *given: Any) -> tuple[Any, float]:
        asked.append(wanted.width)
        return lambda picture, *rest: picture, 1e6

    monkeypatch.setattr(OpenVino, "build_out_of_process", prepare)
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    wait_for(backend, step, lambda: "openvino goes on" in backend.reason)
    before = backend._saved_seconds
    wait_for(backend, step, lambda: backend._saved_seconds > before)
    backend._saved_seconds = 1.5e6
    wait_for(backend, backend.compile(spec(width=120)), lambda: 120 in asked, 120)
    steps = iter(range(20))
    wait_for(backend, backend.compile(spec(width=128)), lambda: next(steps, None) is None, 128)
    assert asked == [112, 120]  # what was left does not pay for a third


def test_auto_builds_in_another_process(kept: Path, eager_to_build: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing here waits for it; the next run takes what it left, and builds nothing."""
    def build(*_: object, **__: object) -> None:
        raise AssertionError("recorded here")

    monkeypatch.setattr(graph, "build", build)
    backend = Auto(MODEL, "cpu", "fp32")
    wait_for(backend, backend.compile(spec()), lambda: "goes on" in backend.reason)
    assert len(engine_cache.list_engines()) == 1
    monkeypatch.setattr(build_process, "build_in_subprocess", build)
    monkeypatch.setattr(auto, "BUILD_SECONDS", 1e9)
    backend = Auto(MODEL, "cpu", "fp32")
    wait_for(backend, backend.compile(spec()), lambda: "goes on" in backend.reason)


def test_auto_goes_on_where_the_builder_dies(kept: Path, eager_to_build: None) -> None:
    build_process.cancel()  # one that waits from another test
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    wait_for(backend, step, lambda: bool(builders(os.getpid())))
    for child in builders(os.getpid()):
        os.kill(child, signal.SIGKILL)
    wait_for(backend, step, lambda: "openvino failed (the process that built the engine has died)" in backend.reason)
    assert backend.name == "eager" and not builders(os.getpid())


def order(width: int, model: str = "inception_v3") -> build_process.BuildRequest:
    return build_process.BuildRequest("openvino", model, "cpu", "fp32", 1, spec(width=width), (1, 3, 96, width), ())


def engines(folder: Path) -> int:
    return len(list(folder.glob("*.engine")))


def test_a_builder_waits_for_more(kept: Path, eager_to_build: None, monkeypatch: pytest.MonkeyPatch,
                                  tmp_path: Path) -> None:
    """And knows what has changed meanwhile: here the folder. One that has waited long enough is replaced."""
    build_process.cancel()
    monkeypatch.setattr(build_process, "IDLE_TIMEOUT_SECONDS", 2.0)
    first = build_process.build_in_subprocess(order(112))
    before = builders(os.getpid())
    with pytest.raises(EngineError, match="no_such_net"):
        build_process.build_in_subprocess(order(112, "no_such_net"))
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "another"))
    second = build_process.build_in_subprocess(order(120))
    assert builders(os.getpid()) == before and len(before) == 1 and second < first  # not all of its life
    assert engines(kept) == 1 and engines(tmp_path / "another" / "engines") == 1
    until(lambda: not builders(os.getpid()), 30)
    build_process.build_in_subprocess(order(128))
    assert engines(tmp_path / "another" / "engines") == 2 and builders(os.getpid()) not in ([], before)


def test_an_order_that_comes_as_the_builder_leaves_is_not_lost(kept: Path, eager_to_build: None,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    build_process.cancel()
    monkeypatch.setattr(build_process, "IDLE_TIMEOUT_SECONDS", 0.0)
    builder = build_process.Worker()
    monkeypatch.setattr(build_process, "IDLE_TIMEOUT_SECONDS", 20.0)
    answers = builder._child.stdout
    assert answers is not None
    until(lambda: select.select([answers], [], [], 0)[0] != [], 60)  # it has said that it ends
    monkeypatch.setattr(builder, "usable", lambda: builder._child.returncode is None)
    build_process._worker = builder
    build_process.build_in_subprocess(order(112))
    assert engines(kept) == 1


def test_a_builder_gives_way_to_what_dreams(kept: Path, eager_to_build: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same session: among sessions, Linux shares the processors out evenly, however low the priority."""
    monkeypatch.setattr(build_process, "NICENESS", 19)
    backend = Auto(MODEL, "cpu", "fp32")
    step = backend.compile(spec())
    wait_for(backend, step, lambda: 19 in [os.getpriority(os.PRIO_PROCESS, child) for child in builders(os.getpid())])
    [child] = builders(os.getpid())
    assert os.getsid(child) == os.getsid(0) and os.getpgid(child) == child
    build_process.cancel()
    wait_for(backend, step, lambda: not builders(os.getpid()))


def builders(parent: int = 0) -> list[int]:
    """Processes that build for that one, or for any."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, status = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()
            if b"streamdream.backends.build_worker" in command and int(status[1]) == (parent or int(status[1])):
                found.append(int(path.name))
    return found


ORDER = """
from support.engines import MODEL, spec, wait_for
from streamdream.backends import auto
auto.BUILD_SECONDS = 0.0
backend = auto.Auto(MODEL, "cpu", "fp32")
wait_for(backend, backend.compile(spec()), lambda: False)
"""


def test_a_builder_ends_with_whoever_asked(kept: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORDER],
                              env=PROGRAM_ENVIRONMENT | {"STREAMDREAM_CACHE": str(kept.parent)})
    try:
        until(lambda: bool(builders(parent.pid)), 60)
        [child] = builders(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: child not in builders(), 30)


def test_a_show_ends_while_its_engine_is_being_built(tmp_path: Path) -> None:
    """Cleanly, and the builder with it."""
    command = [sys.executable, "-m", "streamdream", "live", "--source", "lavfi:testsrc2=size=160x96:rate=30", "--sink",
               "null", "--backend", "openvino", "--layers", "mixed0"]
    show = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT | {"STREAMDREAM_CACHE": str(tmp_path)})
    try:
        until(lambda: bool(builders(show.pid)) or show.poll() is not None, 60)
        show.send_signal(signal.SIGINT)
        output, errors = show.communicate(timeout=60)
    finally:
        show.kill()
    assert show.returncode == 0 and "openvino" in output and "error" not in errors, errors
    assert not builders(show.pid)


def test_a_short_run_builds_nothing(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", "lavfi:testsrc=size=96x72:d=0.4", "-o", tmp_path / "a.mp4", "--json")
    report = json.loads(result.stdout)
    assert report["backend"] == "eager" and "openvino is tried when the run is long enough" in report["reason"]
    assert not kept.exists()
