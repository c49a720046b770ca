"""The contract of every backend, against plain autograd in float32: one step, never a trajectory."""
from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.autograd_reference import plain

from streamdream import backends, models
from streamdream.ascent import step
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import Objective, from_settings
from streamdream.ascent.terms import Activations
from streamdream.backends import BACKENDS, StepSpec, tensorrt
from streamdream.backends.precision import DTYPES
from streamdream.errors import SettingsError, UnknownName
from streamdream.media.frame import to_signed_unit, to_tensor
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import parse_layers

MODEL = models.get("inception_v3")
NAMES = [name for name in BACKENDS if name != "auto"]
DEEP = [Activations(parse_layers("mixed3")), Activations(parse_layers("mixed5[3,17]:0.5,conv2d_4[3,17]"))]
SHALLOW = [Activations(parse_layers("conv2d_2")), Activations(parse_layers("mixed0[3,17]:0.5,conv2d_4[3,17]"))]
OBJECTIVES = {"compiled": SHALLOW, "onnx": SHALLOW}
"""PyTorch's compiler takes most of a minute for mixed3, and for each other size or precision again; the exporter to
ONNX takes seconds, and deep layers there are in test_onnx.py."""
HEIGHT, WIDTH = 160, 201
on_each_device = pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
FEW_STEPS = [pytest.param(name, marks=[pytest.mark.soak] if name in OBJECTIVES else []) for name in NAMES]
"""PyTorch's compiler takes half a minute for each step, ONNX seconds; some of them are in every run of the tests."""


def create(name: str, precision: str, device: str = "cpu") -> backends.Backend:
    runs, reason = backends.available(name)
    if not runs:
        pytest.skip(f"{name}: {reason}")
    try:
        return backends.create(name, MODEL, device, precision)
    except SettingsError as error:
        pytest.skip(f"{name}: {error}")


@functools.cache
def compiled_step(name: str, device: str, number: int = 0) -> Any:
    """Return the step of an objective in float32; what PyTorch's compiler makes in half a minute is made once."""
    return create(name, "fp32", device).compile(spec(objective_of(name, number)))


def without_ties(photo: NDArray[np.uint8]) -> torch.Tensor:
    """A photograph with a little noise. Its flat areas make equal values in the window of a pool, of which each
    library's rounding chooses another: plain autograd in float32 is as far from that in float64.
    """
    noise = torch.randn((1, 3, *photo.shape[:2]), generator=torch.Generator().manual_seed(0))
    return to_tensor(to_signed_unit(photo) * 0.9) + 1e-3 * noise


def reference(objective: Activations, photo: torch.Tensor) -> torch.Tensor:
    """Plain autograd through the plain network."""
    watched = photo.clone().requires_grad_()
    value = objective.value(plain(list(objective.taps), watched, torch.float32, folded=True), ())
    gradient = torch.autograd.grad(value, watched)[0]
    return step.ascend(photo, [gradient], [(objective, 1.0)], 0.02, GradientShape(1.0, 0.4))


def spec(objective: Activations, height: int = HEIGHT, width: int = WIDTH) -> StepSpec:
    return StepSpec(Objective(((objective, 1.0),)), height, width, GradientShape(1.0, 0.4))


def objective_of(name: str, number: int = 0) -> Activations:
    return OBJECTIVES.get(name, DEEP)[number]


@on_each_device
@pytest.mark.parametrize(("name", "number"), [
    pytest.param(name, number, marks=[pytest.mark.soak] if number and name in (*OBJECTIVES, "openvino") else [])
    for name in NAMES for number in (0, 1)])
def test_one_step_equals_the_reference(name: str, number: int, lion: NDArray[np.uint8], device: str) -> None:
    photo, objective = without_ties(lion[:HEIGHT, :WIDTH]), objective_of(name, number)
    taken = compiled_step(name, device, number)(photo, 0.02).cpu()
    expected = reference(objective, photo)
    assert taken.dtype == torch.float32
    assert float((taken - expected).norm() / (expected - photo).norm()) < 1e-4


@on_each_device
@pytest.mark.parametrize("name", FEW_STEPS)
@pytest.mark.parametrize("precision", [name for name in DTYPES if name != "fp32"])
def test_low_precision_has_the_same_direction(name: str, precision: str, lion: NDArray[np.uint8], device: str) -> None:
    if (name, precision) == ("compiled", "fp16"):
        pytest.skip("emulated here, and compiled for half a minute")
    photo, objective = to_tensor(to_signed_unit(lion) * 0.9), (SHALLOW if name == "compiled" else DEEP)[0]
    taken = create(name, precision, device).compile(spec(objective, 256, 256))(photo, 0.02).cpu()
    expected = reference(objective, photo)
    assert float(torch.cosine_similarity((taken - photo).flatten(), (expected - photo).flatten(), 0)) > 0.98


@on_each_device
@pytest.mark.parametrize("name", NAMES)
def test_step_size_is_an_input(name: str, lion: NDArray[np.uint8], device: str) -> None:
    photo = to_tensor(to_signed_unit(lion[:HEIGHT, :WIDTH]) * 0.5)
    take = compiled_step(name, device)
    full, half = take(photo, 0.02).cpu() - photo, take(photo, 0.01).cpu() - photo
    torch.testing.assert_close(full, 2 * half, atol=1e-5, rtol=1e-3)


@on_each_device
@pytest.mark.parametrize("name", FEW_STEPS)
def test_one_step_serves_all_weights_of_the_same_layers(name: str, lion: NDArray[np.uint8], device: str) -> None:
    """Weights of layers and channels are inputs: a fade or another channel makes no engine."""
    photo, backend = without_ties(lion[:HEIGHT, :WIDTH]), create(name, "fp32", device)
    steps = set()
    for layers in ("mixed0[3,17]:1,conv2d_4:0.5", "mixed0:-0.2,conv2d_4[5]:1"):
        objective = from_settings(DreamSettings(layers=layers), MODEL)
        steps.add(objective.structure)
        take = backend.compile(StepSpec(objective.structure, HEIGHT, WIDTH, GradientShape(1.0, 0.4)))
        taken = take(photo, 0.02, backend.targets(objective, {})).cpu()
        expected = reference(Activations(objective.terms[0][0].weights), photo)  # type: ignore[attr-defined]
        assert float((taken - expected).norm() / (expected - photo).norm()) < 1e-4
    assert len(steps) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_too_small_for_the_layer_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="40x40 picture is too small for mixed3"):
        create(name, "fp32").compile(spec(DEEP[0], 40, 40))


def test_an_unknown_backend_or_device_is_one_error_line() -> None:
    with pytest.raises(UnknownName, match="unknown backend 'egaer'; did you mean eager"):
        backends.create("egaer", MODEL)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="--device cuda cannot be used"):
            backends.create("eager", MODEL, "cuda")
    with pytest.raises(SettingsError, match=r"--device banana cannot be used: there is no such device; this machine "
                                            r"has auto, cpu(, cuda(, cuda:\d)*)?$"):
        backends.create("eager", MODEL, "banana")


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch's compiler needs no other one there")
def test_compiled_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "a-compiler-that-nobody-has")
    assert backends.available("compiled") == (
        False, "PyTorch's compiler needs a C++ compiler; on Debian: apt-get install g++")
    monkeypatch.setenv("CXX", sys.executable)
    assert backends.available("compiled") == (True, f"PyTorch's compiler with {sys.executable}")


@pytest.mark.parametrize(("capability", "package", "runs"), [
    ((9, 0), "torch-tensorrt-rtx", False), ((7, 0), "torch-tensorrt-rtx", False), ((9, 0), "torch-tensorrt", True),
    ((8, 6), "torch-tensorrt-rtx", True), ((12, 1), "torch-tensorrt-rtx", True)])
def test_tensorrt_rtx_is_not_offered_where_it_cannot_run(capability: tuple[int, int], package: str, runs: bool,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H100 its builder makes an engine, and then its runtime refuses it: seen with release 1.7."""
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt, "import_quietly", lambda: None)
    monkeypatch.setattr(tensorrt, "versions", lambda: {package: "2.14.0"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Something")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    found, reason = backends.available("tensorrt")
    assert found == runs
    if not runs:
        assert f"NVIDIA Something, which has compute capability {capability[0]}.{capability[1]}: pip " in reason


@on_each_device
@pytest.mark.parametrize("name", FEW_STEPS)
def test_a_step_of_size_0_changes_nothing(name: str, lion: NDArray[np.uint8], device: str) -> None:
    """Whatever the precision, the picture itself stays in float32."""
    photo = to_tensor(to_signed_unit(lion))
    take = create(name, "bf16", device).compile(spec(objective_of(name), 256, 256))
    torch.testing.assert_close(take(photo, 0.0).cpu(), photo, atol=1e-6, rtol=0)


def test_another_step_size_compiles_nothing_again(lion: NDArray[np.uint8]) -> None:
    photo = to_tensor(to_signed_unit(lion[:HEIGHT, :WIDTH]))
    take = compiled_step("compiled", "cpu")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step_size in (0.02, 0.01):
            take(photo, step_size)


@on_each_device
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] if name == "onnx" else [])
                                  for name in NAMES if name != "compiled"])
def test_a_batch_equals_its_single_pictures(name: str, lion: NDArray[np.uint8], device: str) -> None:
    photos = torch.cat(
        [to_tensor(to_signed_unit(lion[:96, :96])), to_tensor(to_signed_unit(lion[96:192, 96:192])) * 0.3]
    )
    take = create(name, "fp32", device).compile(spec(SHALLOW[0], 96, 96))
    together = take(photos, 0.02).cpu()
    for number in range(2):
        alone, photo = take(photos[number:number + 1], 0.02).cpu(), photos[number:number + 1]
        assert float((together[number] - alone[0]).norm() / (alone - photo).norm()) < 0.02  # a pool or two may flip


def test_auto_reports_the_reason_of_its_choice() -> None:
    backend = backends.create("auto", MODEL, "cpu", "auto")
    assert backend.name == "eager"
    assert "bf16" in backend.reason
    assert backend.precision in DTYPES
