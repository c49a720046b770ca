"""Which backend a run is given before its first frame, so that it can be resumed with the same bits."""
from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.commands import PROGRAM_ENVIRONMENT
from support.engines import MODEL, builders
from support.waiting import until

from streamdream import backends
from streamdream.backends import build_process, trial
from streamdream.backends.engine import EngineRequest
from streamdream.backends.engine_cache import Timing
from streamdream.backends.evictable import LoadedEngine
from streamdream.backends.openvino import OpenVino
from streamdream.dream.build import choose_backend
from streamdream.errors import EngineError, FieldTooSmall, UsageError
from streamdream.media.images import write_image
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.system.torch_threads import set_process_threads

STREAM = StreamSettings(device="cpu", precision="fp32", field_height=96)
SETTINGS = DreamSettings(layers="conv2d_4")
with_openvino = pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")


class Timings:
    """In the place of OpenVINO's engines: ``stored`` by (width, height), and ``measured`` for those that are built."""

    def __init__(self, stored: dict[tuple[int, int], Timing], measured: float = 0.5) -> None:
        self.stored, self.measured = stored, measured
        self.built: list[EngineRequest] = []
        self.threads: list[int] = []

    def load(self, backend: OpenVino, request: EngineRequest) -> Timing | None:
        self.threads.append(backend.threads)
        return self.stored.get((request.spec.width, request.spec.height))

    def store(self, backend: OpenVino, request: EngineRequest, timing: Timing) -> None:
        self.stored[request.spec.width, request.spec.height] = timing

    def build(self, backend: OpenVino, request: EngineRequest) -> LoadedEngine:
        self.built.append(request)
        return LoadedEngine(lambda picture, *rest: picture, 1)

    def time_alternately(self, tried: trial.Trial, picture: torch.Tensor, *rest: object) -> torch.Tensor:
        tried.timing = Timing(1.0, self.measured)
        return picture

    def use(self, monkeypatch: pytest.MonkeyPatch) -> Timings:
        # functions, not bound methods: these get the object that they are called on
        monkeypatch.setattr(OpenVino, "load_timing", lambda *args: self.load(*args))
        monkeypatch.setattr(OpenVino, "store_timing", lambda *args: self.store(*args))
        monkeypatch.setattr(OpenVino, "build_out_of_process", lambda *args: self.build(*args))
        monkeypatch.setattr(trial.Trial, "time_alternately", lambda *args: self.time_alternately(*args))
        return self


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    set_process_threads(0)


@pytest.fixture()
def frame(lion: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[96, 112, 3]; its octaves are 80x69 and 112x96."""
    return np.ascontiguousarray(lion[:96, :112])


SMALL, LARGE = (80, 69), (112, 96)


@with_openvino
@pytest.mark.parametrize(("small", "large", "winner"), [
    (Timing(1.0, 2.0), Timing(4.0, 2.0), "openvino"),  # faster on the whole
    (Timing(1.0, 0.5), Timing(4.0, 5.0), "eager"),
    (Timing(1.0, 1.0), Timing(4.0, 3.9), "eager")])  # as good as the same
def test_the_sum_of_all_octaves_decides(small: Timing, large: Timing, winner: str, frame: NDArray[np.uint8],
                                        kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timings = Timings({SMALL: small, LARGE: large}).use(monkeypatch)
    choice = choose_backend(STREAM, frame, SETTINGS)
    assert choice[:2] == (winner, "fp32") and f"{winner} is used now" in choice.reason
    assert "80x69, 112x96" in choice.reason and not timings.built


@with_openvino
def test_what_is_not_timed_is_eager_unless_it_may_be_built(frame: NDArray[np.uint8], kept: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    timings = Timings({SMALL: Timing(1.0, 0.5)}).use(monkeypatch)
    choice = choose_backend(STREAM, frame, SETTINGS)
    assert choice.backend == "eager" and "not all steps of this run are timed with openvino" in choice.reason
    assert not timings.built
    assert choose_backend(STREAM, frame, SETTINGS, may_build=True).backend == "openvino"
    assert [tuple(request.shape) for request in timings.built] == [(1, 3, 96, 112)]
    assert timings.stored[LARGE] == Timing(1.0, 0.5)  # so the next run need not build
    assert choose_backend(STREAM, frame, SETTINGS).backend == "openvino" and len(timings.built) == 1


@with_openvino
def test_a_timing_that_is_not_clear_is_not_stored(frame: NDArray[np.uint8], kept: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    timings = Timings({}, measured=0.95).use(monkeypatch)
    assert choose_backend(STREAM, frame, SETTINGS, may_build=True).backend == "openvino"
    assert len(timings.built) == 2 and not timings.stored


@with_openvino
def test_engines_are_for_the_targets_and_threads_of_the_run(frame: NDArray[np.uint8], kept: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(str(tmp_path / "guide.png"), frame)
    timings = Timings({}).use(monkeypatch)
    choose_backend(replace(STREAM, threads=3), frame, replace(SETTINGS, guide=str(tmp_path / "guide.png")),
                   may_build=True)
    assert timings.threads == [3, 3]
    assert timings.built and all(any(request.targets) for request in timings.built)


@with_openvino
def test_a_failed_build_is_eager_and_the_log_says_why(frame: NDArray[np.uint8], kept: Path,
                                                      monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise EngineError("out of luck\nat line 7")

    monkeypatch.setattr(OpenVino, "build_out_of_process", fail)
    monkeypatch.setattr(logging.getLogger("streamdream"), "propagate", True)
    choice = choose_backend(STREAM, frame, SETTINGS, may_build=True)
    assert choice.backend == "eager" and "openvino failed (out of luck);" in choice.reason
    assert "openvino failed (out of luck)" in caplog.text


def test_a_backend_asked_for_by_name_is_kept(frame: NDArray[np.uint8]) -> None:
    eager = backends.create("eager", MODEL, "cpu", "auto")
    choice = choose_backend(replace(STREAM, backend="eager", precision="auto"), frame, SETTINGS, may_build=True)
    assert choice[:2] == ("eager", eager.precision)
    with pytest.raises(UsageError):
        choose_backend(replace(STREAM, backend="eager", device="banana"), frame, SETTINGS)


@with_openvino
def test_tiles_need_no_engine(lion: NDArray[np.uint8]) -> None:
    stream = replace(STREAM, field_height=0, tile_memory=50)
    picture = np.ascontiguousarray(np.tile(lion, (2, 2, 1)))
    choice = choose_backend(stream, picture, replace(SETTINGS, layers="mixed0", octaves=1), may_build=True)
    assert choice.backend == "eager" and "in tiles" in choice.reason


def test_a_field_that_is_too_small_is_refused(lion: NDArray[np.uint8]) -> None:
    with pytest.raises(FieldTooSmall):
        choose_backend(STREAM, lion[:40, :40], DreamSettings(layers="mixed5"))


@pytest.mark.soak
@with_openvino
def test_the_real_engine_is_built_timed_and_found_again(frame: NDArray[np.uint8], kept: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_process, "NICENESS", 0)
    monkeypatch.setattr(trial, "MIN_CLEAR_RATIO", 1.0)  # store the timing in any case
    one_octave = replace(SETTINGS, octaves=1)
    first = choose_backend(STREAM, frame, one_octave, may_build=True)
    assert first.backend in ("eager", "openvino") and "is used now" in first.reason
    assert len(list(kept.glob("*.engine"))) == 1
    assert choose_backend(STREAM, frame, one_octave) == first


PROGRAM = """
import numpy as np
from streamdream.cli import signals
from streamdream.dream.build import choose_backend
from streamdream.settings import DreamSettings, StreamSettings
if {installed}:
    signals.install()
image = np.random.default_rng(0).integers(0, 255, (96, 112, 3), np.uint8)
stream = StreamSettings(device="cpu", precision="fp32", field_height=96)
print(choose_backend(stream, image, DreamSettings(octaves=1), may_build=True))
"""


@with_openvino
@pytest.mark.parametrize(("installed", "ending"), [
    (True, "error: interrupted"), pytest.param(False, "KeyboardInterrupt", marks=pytest.mark.soak)])
def test_ctrl_c_ends_a_build_cleanly(installed: bool, ending: str, tmp_path: Path) -> None:
    """In the command, and in a program of its own."""
    run = subprocess.Popen([sys.executable, "-c", PROGRAM.format(installed=installed)], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True,
                           env=PROGRAM_ENVIRONMENT | {"STREAMDREAM_CACHE": str(tmp_path)})
    try:
        until(lambda: bool(builders(run.pid)) or run.poll() is not None, 60)
        [child] = builders(run.pid)
        os.kill(run.pid, signal.SIGINT)
        output, errors = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert output == "" and errors.splitlines()[-1].startswith(ending), errors
    assert run.returncode in (130, -signal.SIGINT)
    until(lambda: child not in builders(), 30)
