"""Engines: what is kept between runs and when it is built anew, and which are refused."""
from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamdream_bench.step import with_weights
from support.commands import PROGRAM_ENVIRONMENT, fails, here
from support.engines import MODEL, counted, spec, step_once

from streamdream import backends, models
from streamdream.ascent.objectives import Objective
from streamdream.ascent.terms import Activations
from streamdream.backends import StepSpec, engine, engine_cache, graph, openvino, openvino_precision
from streamdream.backends.openvino import OpenVino
from streamdream.errors import EngineError, SettingsError
from streamdream.models import Model
from streamdream.models.nodes import Concat
from streamdream.settings_parsing import parse_layers

MADE_OF = {"backend": "test", "size": "4x3", "graph": "abc"}
pytestmark = pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")


def test_a_second_run_builds_nothing_and_dreams_the_same(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = counted(monkeypatch)
    first = step_once()
    assert len(built) == 1 and len(list(kept.glob("*.engine"))) == 1
    assert torch.equal(step_once(), first) and len(built) == 1


def test_an_engine_is_for_one_size_only(kept: Path) -> None:
    """What leaves sizes open is slower at each step."""
    wanted = spec()
    data = OpenVino(MODEL, "cpu", "fp32").serialize(graph.build(MODEL, wanted, torch.float32))
    model = openvino._core().import_model(io.BytesIO(data), "CPU")
    assert [tuple(given.shape) for given in model.inputs] == [(1, 3, wanted.height, wanted.width), (1,)]


def test_the_threads_of_openvino_are_bound_to_no_processor(kept: Path) -> None:
    """One that is bound to a processor waits for whoever has that: a display, while the other one is idle."""
    wanted = spec()
    step = OpenVino(MODEL, "cpu", "fp32").compile(wanted)
    picture = engine.natural_noise(torch.Size((1, 3, wanted.height, wanted.width)), torch.device("cpu"))
    for _ in range(3):
        picture = step(picture, 0.02)
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            assert os.sched_getaffinity(int(task.name)) == os.sched_getaffinity(0)


@pytest.mark.parametrize("name", ["inception_v3", pytest.param("bvlc_googlenet", marks=pytest.mark.soak)])
def test_half_precision_keeps_layers_before_the_first_pool_in_fp32(name: str) -> None:
    """OpenVINO's own reader must find the marks; and they change nothing in float32."""
    model, _ = with_weights(models.get(name))
    layers = next(node.name for node in model.nodes() if isinstance(node, Concat))
    wanted = replace(spec(), objective=Objective(((Activations(parse_layers(layers)), 1.0),)))
    recorded = graph.build(model, wanted, torch.float32)
    plain, core = openvino.convert(recorded), openvino._core()
    marked = openvino_precision.keep_fp32(core, openvino._openvino(), plain, openvino_precision.fp32_nodes(recorded))
    found = [each.get_type_name() for each in marked.get_ordered_ops()
             if "DisablePrecisionConversion_0" in each.get_rt_info()]
    assert found.count("Convolution") == found.count("Relu") == {"inception_v3": 3, "bvlc_googlenet": 1}[name]
    assert "MaxPool" not in found
    picture = engine.natural_noise(torch.Size((1, 3, 96, 112)), torch.device("cpu")).contiguous().numpy()
    given = [picture, np.array([0.02], np.float32)]
    first, second = (core.compile_model(each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)[0]
                     for each in (plain, marked))
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.soak
def test_everything_an_engine_depends_on_is_in_its_key(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = counted(monkeypatch)
    changed = {name: weight.clone() for name, weight in MODEL.load_weights().items()}
    changed["conv2d_2.weight"][0, 0, 0, 0] += 0.5
    ways: list[Callable[[], object]] = [
        step_once, lambda: step_once(wanted=spec(width=113)), lambda: step_once(wanted=spec("mixed0")),
        lambda: step_once(replace(MODEL, load_weights=lambda: changed)), lambda: step_once(batch=2)]
    with contextlib.suppress(SettingsError):  # where the processor has no instructions for it
        OpenVino(MODEL, "cpu", "bf16")
        ways.append(lambda: step_once(precision="bf16"))
    for number, way in enumerate(ways, 1):
        way()
        assert len(built) == number
    monkeypatch.setattr("streamdream.backends.openvino._version", lambda: "2031.1")
    step_once()
    monkeypatch.setattr(torch, "__version__", "3.0")
    step_once()
    monkeypatch.setattr("streamdream.backends.engine.process_threads", lambda: 7)
    step_once()
    assert len(built) == len(ways) + 3 == len(engine_cache.list_engines())


def test_a_second_run_records_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording takes seconds. Where anything differs that a graph is made from, it is recorded again."""
    recorded: list[StepSpec] = []
    build = graph.build

    def counting(model: Model, spec: StepSpec, *more: Any, **named: Any) -> Any:
        recorded.append(spec)
        return build(model, spec, *more, **named)

    monkeypatch.setattr(graph, "build", counting)
    first = step_once()
    assert len(recorded) == 1 and torch.equal(step_once(), first) and len(recorded) == 1
    monkeypatch.setattr("streamdream.backends.cached_engine.code_digest", lambda: "of another release")
    built = counted(monkeypatch)
    assert torch.equal(step_once(), first) and len(recorded) == 2 and not built  # but the engine is the same
    for path in kept.glob("*.index"):
        path.write_text("{")
    assert torch.equal(step_once(), first) and len(recorded) == 3 and not built
    step_once(wanted=spec(width=113))
    assert len(recorded) == 4 and len(built) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:len(data) // 2], lambda data: b"", lambda data: b"{}\n",
                                    lambda data: data[:-9] + b"\0" * 9, lambda data: b"\xff\xfe" + data])
def test_damaged_files_are_built_anew(kept: Path, damage: Callable[[bytes], bytes]) -> None:
    engine_cache.load_or_build(MADE_OF, lambda data: data, lambda: b"first" * 99)
    [path] = kept.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert engine_cache.load_or_build(MADE_OF, lambda data: data, lambda: b"second") == b"second"
    assert engine_cache.load_or_build(MADE_OF, lambda data: data, lambda: b"never built") == b"second"


def test_messages_about_an_engine_are_correct(kept: Path, caplog: pytest.LogCaptureFixture,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is what the user waits, with tracing and checks; an engine of zeros is damaged, not bad JSON."""
    caplog.set_level("INFO", "streamdream")
    trace = graph.build

    def slow(*rest: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return trace(*rest, **named)

    monkeypatch.setattr(graph, "build", slow)
    step_once()
    building, ready = (record.message for record in caplog.records)
    assert building.startswith("building an engine for 112x96") and ready.endswith("s; the next run finds it")
    assert float(ready.removeprefix("the engine is ready after ").partition(" ")[0]) >= 0.5
    [path] = kept.glob("*.engine")
    path.write_bytes(bytes(path.stat().st_size))
    caplog.clear()
    step_once()
    assert f"the stored engine {path.stem} cannot be used (it is damaged); it is built again" in caplog.messages


def test_a_truncated_engine_is_built_anew(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = step_once()
    [path] = kept.glob("*.engine")
    os.truncate(path, path.stat().st_size // 2)
    built = counted(monkeypatch)
    assert torch.equal(step_once(), first) and torch.equal(step_once(), first)
    assert len(built) == 1


def test_an_engine_that_does_not_load_is_built_anew(kept: Path) -> None:
    def load(data: bytes) -> bytes:
        if data == b"stale":
            raise RuntimeError("made by another version\nat line 9")
        return data

    assert engine_cache.load_or_build(MADE_OF, lambda data: data, lambda: b"stale") == b"stale"
    assert engine_cache.load_or_build(MADE_OF, load, lambda: b"fresh") == b"fresh"
    assert engine_cache.load_or_build(MADE_OF, load, lambda: b"never built") == b"fresh"


def test_the_engine_least_recently_used_is_evicted_first(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "MAX_CACHE_BYTES", 3000)
    for name in "abc":
        engine_cache.load_or_build({**MADE_OF, "graph": name}, lambda data: data, lambda: b"x" * 800)
        os.utime(
            kept / f"{engine_cache.file_stem({**MADE_OF, 'graph': name})}.engine", (1e9 + ord(name), 1e9 + ord(name))
        )
    engine_cache.load_or_build({**MADE_OF, "graph": "a"}, lambda data: data, lambda: b"never built")
    engine_cache.load_or_build({**MADE_OF, "graph": "d"}, lambda data: data, lambda: b"x" * 800)
    assert {engine.build_key["graph"] for engine in engine_cache.list_engines()} == {"a", "c", "d"}


def test_an_engine_works_without_a_writable_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """On a real file system that is mounted read-only."""
    folder = tmp_path / "cache"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        monkeypatch.setenv("STREAMDREAM_CACHE", str(folder))
        caplog.set_level("INFO", "streamdream")
        step_once()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert "cannot be kept" in caplog.text and "Traceback" not in caplog.text
    assert "the engine is ready after" in caplog.text and "the next run finds it" not in caplog.text


STEP = """
from support.engines import step_once
print(float(step_once().abs().sum()))
"""


@pytest.mark.soak
def test_two_processes_can_build_one_engine_at_once(kept: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=PROGRAM_ENVIRONMENT | {"STREAMDREAM_CACHE": str(kept.parent)}) for _ in range(2)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert [code for _, _, code in ends] == [0, 0], ends
    assert ends[0][0] == ends[1][0]
    assert len(list(kept.glob("*.engine"))) == 1


def test_an_engine_that_computes_something_else_is_refused(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = OpenVino.build_engine

    def wrong(self: OpenVino, recorded: Any) -> Any:
        run = right(self, recorded)
        return lambda picture, *rest: picture + (run(picture, *rest) - picture).flip(3)

    monkeypatch.setattr(OpenVino, "build_engine", wrong)
    with pytest.raises(EngineError, match="openvino does not compute the step right here: cosine"):
        step_once()


def test_a_missing_backend_names_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if backends.available("tensorrt")[0]:
        pytest.skip("TensorRT runs here")
    result = here(capsys, "render", "lavfi:testsrc=d=0.2", "-o", tmp_path / "a.mp4", "--backend", "tensorrt")
    fails(result, 2, "backend tensorrt cannot run here", "")
    assert "pip install 'streamdream[tensorrt" in result.stderr or "NVIDIA GPU" in result.stderr


WITHOUT_A_WORD = """
import sys
from streamdream.system import process_tuning; process_tuning.tune_process()
def hook(event, arguments):
    asks_for_a_library = "ldconfig" in str(arguments)  # as ctypes does
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork", "subprocess.Popen") and not asks_for_a_library:
        print("called", event, arguments, flush=True)
sys.addaudithook(hook)
import torch
from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import parse_layers
model, settings = models.get("inception_v3"), DreamSettings(layers="conv2d_3")
spec = StepSpec(objectives.from_settings(settings, model), 64, 96, GradientShape.of(settings))
backends.create("openvino", model, "cpu", "fp32").compile(spec)(torch.zeros(1, 3, 64, 96), 0.01)
print("telemetry", sorted(name for name in sys.modules if name.startswith("openvino_telemetry")))
"""


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    """By itself it reports each import and each conversion to its maker, in a process that it forks."""
    environment = {**os.environ, "STREAMDREAM_CACHE": str(tmp_path)}
    environment.pop("CI", None)
    result = subprocess.run([sys.executable, "-c", WITHOUT_A_WORD], capture_output=True, text=True, env=environment,
                            check=True)
    assert result.stdout == "telemetry []\n", result.stdout
