"""ONNX files: what is in them, that they run without streamdream, and that a wrong one never appears."""
from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.browser import CHROMIUM, FLAGS
from support.commands import fails, here

from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, onnx_export, onnx_runtime, trial
from streamdream.backends.eager import Eager
from streamdream.backends.engine import EngineRequest, natural_noise, run_engine
from streamdream.backends.engine_cache import Timing
from streamdream.backends.onnx_runtime import OnnxRuntime
from streamdream.dream import onnx_files, onnx_frame
from streamdream.errors import MissingPackage, SettingsError
from streamdream.media.images import read_image, write_image
from streamdream.models.model import EMBEDDED_INCEPTION_V3_SHA256
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

PAGE = Path(__file__).parents[1] / "docs/onnx.md"
MODEL = models.get("inception_v3")
LAYERS = "conv2d_4"
SIZE = "80x64"
PICTURES = 8
QUICK = [("inception_v3", "conv2d_4", "guide")]
CASES = [("inception_v3", "mixed5", "dream"), ("inception_v3", "mixed3", "guide"), ("inception_v3", "mixed3", "style"),
         *[(name, layers, kind) for kind in ("dream", "guide", "style") for name, layers in (
             ("bvlc_googlenet", "inception_4c/output:1,conv2/norm2:0.5"), ("cars_googlenet", "inception_4a_output"),
             ("inception5h", "mixed4b"), ("torchvision_googlenet", "inception4a"),
             ("torchvision_inception_v3", "Mixed_6b"), ("keras_inception_v3", "mixed8"))]]
KINDS: dict[str, dict[str, Any]] = {
    "dream": {}, "guide": {"guide": "a.png"}, "style": {"style": "a.png", "style_weight": 1.0, "tv": 0.1, "l2": 0.1}}
pytestmark = pytest.mark.skipif(not backends.available("onnx")[0], reason="ONNX Runtime is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file by the command, beside ``photo.jpg``."""
    from streamdream import cli

    folder = tmp_path_factory.mktemp("onnx")
    assert cli.run(["export", "--layers", LAYERS, "--size", SIZE, "-o", str(folder / "dream.onnx"), "--json"]) == 0
    return folder / "dream.onnx"


@pytest.fixture()
def photo(exported: Path, lion: NDArray[np.uint8]) -> Path:
    path = exported.with_name("photo.jpg")
    if not path.exists():
        write_image(str(path), lion)
    return path


def session_of(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("name", "layers", "kind"), [
    *QUICK, *(pytest.param(*case, marks=pytest.mark.soak) for case in CASES)])
def test_a_step_in_onnx_runtime_equals_eager(name: str, layers: str, kind: str) -> None:
    """Of every architecture, with random weights. A ReLU or a pool may fall the other way by rounding, which changes
    what is below it by 1e-4 to 3e-3, and does so between eager in float32 and float64, too; on another picture it does
    not. What is wrong is wrong on all.
    """
    stored = random_weights(models.get(name).nodes())
    model = replace(models.get(name), load_weights=lambda: stored)
    objective = objectives.from_settings(DreamSettings(layers=layers, **KINDS[kind]), model)
    engines, shape = OnnxRuntime(model, "cpu", "fp32"), torch.Size((1, 3, 131, 171))
    random = torch.Generator().manual_seed(1)
    pictures = {need: torch.rand(1, 3, 96, 112, generator=random) * 2 - 1 for need in ("guide", "style")}
    targets = engines.targets(objective, pictures)
    spec = StepSpec(objective.structure, 131, 171, GradientShape.of(DreamSettings()))
    engine = engines.deserialize(engines.serialize(engines.trace(EngineRequest(spec, shape, targets))), shape)
    eager = Eager(model, "cpu", "fp32").compile(spec)
    differences: list[float] = []
    while len(differences) < PICTURES and min(differences, default=1.0) > 1e-4:
        picture = (torch.rand(shape, generator=random) * 2 - 1).contiguous(memory_format=torch.channels_last)
        expected = eager(picture, 0.02, targets)
        assert float((expected - picture).abs().mean()) > 0.005
        differences.append(float((run_engine(engine, picture, 0.02, targets) - expected).abs().max()))
    print(f"\n{name} {layers} {kind}:", *(f"{difference:.1e}" for difference in differences))  # make soak shows it
    assert min(differences) <= 1e-4 and max(differences) < 1e-2


def test_the_file_says_what_it_is(exported: Path) -> None:
    session = session_of(exported)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == "inception_v3" and facts["licence"] == "MIT" and facts["layers"] == LAYERS
    assert facts["size"] == SIZE and facts["precision"] == "fp32" and facts["jitter"] == "48"
    assert facts["weights_sha256"] == EMBEDDED_INCEPTION_V3_SHA256
    assert "octave" in facts["usage"] and facts["streamdream"]
    tensors = json.loads(facts["tensors"])
    assert list(tensors) == ["picture", "step_size", "weights_conv2d_4", "dream"]
    assert tensors["picture"][:2] == ["float32", [1, 3, 64, 80]] and "-1..1" in tensors["picture"][2]
    assert [given.name for given in session.get_inputs()] == ["picture", "step_size"]
    assert [given.name for given in session.get_overridable_initializers()] == ["weights_conv2d_4"]
    assert str(Path.cwd()).encode() not in exported.read_bytes()  # no path of this machine
    assert b"site-packages" not in exported.read_bytes()


def test_the_weights_of_channels_may_be_given(exported: Path) -> None:
    session = session_of(exported)
    given = {"picture": natural_noise(torch.Size((1, 3, 64, 80)), torch.device("cpu")).contiguous().numpy(),
             "step_size": np.array([0.02], np.float32)}
    weights = np.zeros((80, 1, 1), np.float32)
    weights[7] = 80
    plain, changed = session.run(None, given)[0], session.run(None, {**given, "weights_conv2d_4": weights})[0]
    spec = StepSpec(objectives.from_settings(DreamSettings(layers="conv2d_4[7]"), MODEL), 64, 80,
                    GradientShape.of(DreamSettings()))
    eager = Eager(MODEL, "cpu", "fp32").compile(spec)(torch.from_numpy(given["picture"]), 0.02)
    np.testing.assert_allclose(changed, eager.numpy(), atol=1e-4)
    assert np.abs(changed - plain).max() > 0.01


def example(language: str) -> str:
    body: str = next(body for found, body in re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"),
                                                   re.MULTILINE | re.DOTALL) if found == language)
    return body


def test_where_there_is_no_gradient_the_picture_stays(exported: Path) -> None:
    """As with a channel that a picture does not excite; the exporter takes a small enough summand for 0."""
    picture = np.full((1, 3, 64, 80), 0.25, np.float32)
    session = session_of(exported)
    weights = next(part for part in session.get_overridable_initializers() if part.name.startswith("weights_"))
    dream = session.run(["dream"], {"picture": picture, "step_size": np.full(1, 0.012, np.float32),
                                    weights.name: np.zeros(weights.shape, np.float32)})[0]
    assert np.array_equal(dream, picture)


def test_the_example_dreams_without_streamdream(exported: Path, photo: Path) -> None:
    code = example("python")
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    blocked = "import sys; sys.modules.update(streamdream=None, torch=None)\n"  # importing them would fail
    result = subprocess.run([sys.executable, "-c", blocked + code], cwd=exported.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    dream, before = read_image(str(exported.with_name("dream.png"))), read_image(str(photo))
    small = np.asarray(before[::4, ::4][:64].astype(int))
    assert dream.shape == (64, 80, 3) and dream.std() > small.std() / 2
    assert len(np.unique(dream)) > 200  # it has not run into black and white


def test_half_precision_is_half_the_file_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "half.onnx"
    result = here(capsys, "export", "--layers", "conv2d_2", "--size", SIZE, "-o", path, "--precision", "fp16", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["bytes"] == path.stat().st_size and report["tensors"]["picture"]["type"] == "float32"
    session = session_of(path)
    assert {part.type for part in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}


@pytest.mark.soak
def test_a_guide_and_a_style_are_in_the_file(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "guided.onnx"
    result = here(capsys, "export", "--layers", LAYERS, "--size", SIZE, "-o", path, "--guide", photo, "--style", photo,
                  "--style-layers", "conv2d_2")
    assert result.returncode == 0, result.stderr
    session = session_of(path)
    assert [given.name for given in session.get_inputs()] == ["picture", "step_size"]
    assert not session.get_overridable_initializers()


@pytest.mark.parametrize(("arguments", "parts"), [
    (["-o", "a.txt"], ["a.txt", ".onnx"]), (["-o", "a.onnx", "--layers", "mixd5"], ["mixd5", "mixed5"]),
    (["-o", "a.onnx", "--size", "30x20", "--layers", "mixed5"], ["30x20", "too small for mixed5"]),
    (["-o", "a.onnx", "--size", "big"], ["--size", "'big'", "WIDTHxHEIGHT"]), ([], ["-o dream.onnx"]),
    (["-o", "a.onnx", "--precision", "bf16"], ["bf16", "fp32 or fp16"]),
    (["-o", "no/a.onnx"], ["there is no folder"]),
    (["-o", "a.onnx", "--mask", "no.png"], ["--mask", "--whole-frame"]),
    (["-o", "a.onnx", "--whole-frame", "--flow", "dis"], ["--flow dis", "lucas-kanade"])])
def test_a_mistake_is_one_line_and_leaves_no_file(arguments: list[str], parts: list[str], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = here(capsys, "export", *arguments)
    fails(result, 2, *parts)
    assert len(result.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_is_named_before_the_work(capsys: pytest.CaptureFixture[str],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "step_file", lambda *_: pytest.fail("the step was exported"))
    fails(here(capsys, "export", "--layers", LAYERS, "--size", SIZE, "-o", "/proc/a.onnx"), 1, "cannot be written")


def test_a_file_that_computes_something_else_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(onnx_runtime.HostEngine, "__call__", lambda self, picture, *rest: picture.flip(3))
    result = here(capsys, "export", "--layers", "conv2d_2", "--size", SIZE, "-o", tmp_path / "wrong.onnx")
    fails(result, 1, "onnx does not compute the step right here")
    assert not any(tmp_path.iterdir())


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(onnx_runtime.PACKAGES, "a_module_that_nobody_has", "Something")
    assert backends.available("onnx") == (False, "Something is not installed: pip install 'streamdream[onnx]'")
    with pytest.raises(MissingPackage, match="Something is not installed"):
        backends.create("onnx", MODEL, "cpu")
    fails(here(capsys, "export", "-o", tmp_path / "a.onnx"), 2, "pip install 'streamdream[onnx]'")


def test_a_device_or_precision_that_it_lacks_is_an_error_with_those_that_it_has() -> None:
    with pytest.raises(SettingsError, match=r"--device dml cannot be used by onnx here; it has auto, .*cpu"):
        OnnxRuntime(MODEL, "dml", "fp32")
    with pytest.raises(SettingsError, match="--precision bf16 cannot be used by onnx; it has fp32, fp16"):
        OnnxRuntime(MODEL, "cpu", "bf16")
    assert OnnxRuntime(MODEL, "cpu", "auto").precision == "fp32"


def test_auto_tries_it_where_openvino_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = backends.available
    monkeypatch.setattr(trial, "available", lambda name: (False, "hidden") if name == "openvino" else known(name))
    engines, _ = trial.find_engines(Eager(MODEL, "cpu", "fp32"), "auto")
    assert engines is not None and engines.name == "onnx"
    assert trial.find_engines(Eager(MODEL, "cpu", "bf16"), "auto")[0] is None  # it would round otherwise
    assert trial.wins(Timing(1.0, 0.9))


@pytest.mark.parametrize(("layers", "size", "more"), [
    ("conv2d_4", (112, 96), {}), ("mixed0", (160, 120), {"legibility": 0.7, "stillness": 4.0, "trust": "correlation"}),
    ("mixed3", (320, 240), {})])
@pytest.mark.soak
def test_a_whole_frame_in_onnx_runtime_equals_eager(layers: str, size: tuple[int, int], more: dict[str, Any]) -> None:
    """Each from the same state: flow, trust, warp, steps on all octaves, growth, and the composed picture.

    In a deep network some pools fall the other way by rounding. Then ONNX Runtime must be about as close to eager as
    eager is to itself with other convolutions.
    """
    engines, (width, height) = OnnxRuntime(MODEL, "cpu", "fp32"), size
    settings = DreamSettings(layers=layers, **more)
    made = onnx_frame.trace(MODEL, engines, settings, height, width, 240, "fp32")
    outputs = ["dream", *onnx_frame.NEXT]
    proto = onnx_export.convert(made.traced.export(), made.names, outputs)
    for name, value in made.defaults.items():
        onnx_export.set_default(proto, name, value, changeable=True)
    session, given = engines.open_session(proto.SerializeToString()), dict(made.start)
    assert [part.name for part in session.get_inputs()] == list(made.start)
    differences: list[float] = []
    own: list[float] = []
    for frame in onnx_frame.example_frames(made, 5, settings.jitter):
        given |= frame
        expected = eager_frame(made, given)
        found = session.run(outputs, {name: value.numpy() for name, value in given.items()})
        far = dict(zip(outputs, (distance(*pair) for pair in zip(found, expected, strict=True)), strict=True))
        assert max(far["next_doubt"], far["next_maturity"]) <= 1e-3 and far["next_grey"] <= 1
        differences.append(far["next_residual"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GPUs
            with torch.backends.mkldnn.flags(enabled=False):
                own.append(distance(eager_frame(made, given)[1].numpy(), expected[1]))
        given |= dict(zip(onnx_frame.STATE, expected[1:], strict=True))
    print(f"\n{layers} {width}x{height}, p99.9:", *(f"{number:.1e}" for number in differences), "; eager to itself:",
          *(f"{number:.1e}" for number in own))
    assert float(np.median(differences)) <= max(1e-3, 4 * float(np.median(own)))


def eager_frame(made: onnx_frame.FrameGraph, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        result: tuple[torch.Tensor, ...] = made.traced.module(*given.values(), *made.defaults.values())
    return result


def distance(found: NDArray[Any], expected: torch.Tensor) -> float:
    """The 99.9th percentile of the difference."""
    return float(np.quantile(np.abs(found.astype(np.float32) - expected.numpy().astype(np.float32)), 0.999))


def test_a_whole_frame_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "frame.onnx"
    result = here(capsys, "export", "--layers", "conv2d_2", "--size", "96x64", "--flow", "none", "--octaves", 1,
                  "--whole-frame", "--field-height", 0, "--trust", "full", "-o", path)
    assert result.returncode == 0, result.stderr
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]  # of the exporter
    session = session_of(path)
    assert "next_" in session.get_modelmeta().custom_metadata_map["usage"]
    defaults = {part.name for part in session.get_overridable_initializers()}
    assert {"keep", "cut", "strength", "weights_conv2d_2"} <= defaults


class IsolatedFiles(SimpleHTTPRequestHandler):
    """Files of a folder, on pages that may use threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture()
def site(exported: Path, photo: Path) -> Iterator[str]:
    """The address of a folder with the file, the photo and the page of the documents."""
    exported.with_name("index.html").write_text(example("html"), encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(IsolatedFiles, directory=str(exported.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


@pytest.mark.browser
@pytest.mark.soak  # fetches a package of npm
@pytest.mark.alone
@pytest.mark.skipif(not CHROMIUM or not shutil.which("npm"), reason="no Chromium or no npm here")
def test_the_example_dreams_in_the_browser(exported: Path, site: str) -> None:
    from playwright.sync_api import sync_playwright

    fetched = subprocess.run(["npm", "install", "--no-save", "--ignore-scripts", "onnxruntime-web"],
                             cwd=exported.parent, capture_output=True, text=True, timeout=300)
    if fetched.returncode:
        pytest.skip(f"onnxruntime-web cannot be fetched: {fetched.stderr[-300:]}")
    with sync_playwright() as automation:
        browser = automation.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(site)
        page.wait_for_function("document.title == '20 steps'", timeout=120_000)
        assert page.evaluate("crossOriginIsolated") and not errors
        values = page.evaluate("Array.from(canvas.getContext('2d').getImageData(0, 0, 80, 64).data)")
        page.screenshot(path=str(exported.with_name("page.png")))
        browser.close()
    dream = np.array(values, np.uint8).reshape(64, 80, 4)[..., :3]
    assert len(np.unique(dream)) > 200 and dream.std() > 30
