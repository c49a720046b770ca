"""Loading and running an engine, against a stand-in for TensorRT's runtime that has its documented calls."""
from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamdream import models
from streamdream.backends import tensorrt
from streamdream.backends.eager import Eager
from streamdream.backends.graph import Graph
from streamdream.backends.tensorrt import TensorRt, TensorRtEngine
from streamdream.errors import EngineError

CPU = torch.device("cpu")
SIZE = torch.Size((1, 1, 2, 3))


class Runtime:
    """Loads an engine that adds its two inputs, and where ``data`` says so also doubles the first."""

    def __init__(self, logger: object) -> None:
        pass

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        if data == b"of another GPU":
            return None
        names = ["a", "b", "sum", "double"] if data == b"two" else ["a", "b", "sum"]
        addresses: dict[str, int] = {}

        def floats(name: str) -> Any:
            return (ctypes.c_float * SIZE.numel()).from_address(addresses[name])

        def execute(stream: int) -> bool:
            if data == b"fails":
                return False
            floats("sum")[:] = [x + y for x, y in zip(floats("a"), floats("b"), strict=True)]
            if "double" in addresses:
                halves = (ctypes.c_uint16 * SIZE.numel()).from_address(addresses["double"])
                doubled = torch.tensor([2 * x for x in floats("a")], dtype=torch.float16)
                halves[:] = doubled.view(torch.uint16).tolist()
            return True

        context = SimpleNamespace(set_tensor_address=addresses.__setitem__, execute_async_v3=execute)
        return SimpleNamespace(num_io_tensors=len(names), get_tensor_name=names.__getitem__,
                               get_tensor_mode=lambda name: "in" if name in "ab" else "out",
                               create_execution_context=lambda: context)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    runtime = SimpleNamespace(Runtime=Runtime, Logger=logger, TensorIOMode=SimpleNamespace(INPUT="in"),
                              __spec__=ModuleSpec("tensorrt", None))
    monkeypatch.setitem(sys.modules, "tensorrt", runtime)
    monkeypatch.setattr(tensorrt, "import_quietly", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    columns = torch.arange(6.0).reshape(1, 1, 3, 2).transpose(2, 3)  # an engine takes plain rows
    return columns, torch.full(SIZE, 10.0)


def test_an_engine_of_a_step_returns_its_picture() -> None:
    engine = TensorRtEngine(b"one", CPU, ((SIZE, torch.float32),))
    first, second = inputs()
    torch.testing.assert_close(engine(first, second), first + 10)


def test_an_engine_of_a_frame_returns_every_output_in_its_order_and_type() -> None:
    engine = TensorRtEngine(b"two", CPU, ((SIZE, torch.float32), (SIZE, torch.float16)))
    first, second = inputs()
    total, double = engine.run(first, second)
    torch.testing.assert_close(total, first + 10)
    torch.testing.assert_close(double, (2 * first).half())


def test_an_engine_with_another_number_of_outputs_is_an_error() -> None:
    engine = TensorRtEngine(b"two", CPU, ((SIZE, torch.float32),))
    with pytest.raises(ValueError, match="zip"):
        engine.run(*inputs())


def test_an_engine_that_cannot_be_loaded_or_run_says_so() -> None:
    with pytest.raises(EngineError, match="another version or for another GPU"):
        TensorRtEngine(b"of another GPU", CPU, ((SIZE, torch.float32),))
    with pytest.raises(EngineError, match="--backend eager can"):
        TensorRtEngine(b"fails", CPU, ((SIZE, torch.float32),))(*inputs())


class Standing(TensorRt):
    """The backend without a GPU: it keeps graphs in place of engines."""

    def __init__(self) -> None:
        self._eager = Eager(models.get("inception_v3"), "cpu", "fp32")
        self.model, self.device, self.precision = self._eager.model, CPU, "fp32"
        self.graphs: list[Any] = []

    def serialize(self, traced: Graph) -> bytes:
        self.graphs.append(traced.module)
        return str(len(self.graphs) - 1).encode()


def frame_like(image: torch.Tensor, weights: torch.Tensor, same: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of bytes and of one tensor given twice, as the weights of two octaves are."""
    levels = image.float() * weights + same
    return levels * 0.5, levels.add(0.5).clamp(0, 255).to(torch.uint8)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_function_that_an_engine_runs_is_another(is_wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Standing()

    class Engine:
        def __init__(self, data: bytes, device: torch.device, outputs: Any) -> None:
            self._module = backend.graphs[int(data)]
            assert [kind for _, kind in outputs] == [torch.float32, torch.float32]  # engines return no bytes

        def run(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found: tuple[torch.Tensor, ...] = self._module(*arguments)
            assert len({node.name for node in self._module.graph.nodes if node.op == "placeholder" and node.users}) == 3
            return tuple(-output if is_wrong else output for output in found)

    monkeypatch.setattr(tensorrt, "TensorRtEngine", Engine)
    weights = torch.rand(1, 1, 2, 3)
    image = torch.randint(0, 256, (1, 4, 2, 3), dtype=torch.uint8)
    run = backend.compile_function(frame_like, ["a step"])  # type: ignore[list-item]
    if is_wrong:
        with pytest.raises(EngineError, match="does not compute the frame right"):
            run(image, weights, weights)
        return
    for _ in range(2):
        half, levels = run(image, weights, weights)
        expected = frame_like(image, weights, weights)
        torch.testing.assert_close(half, expected[0])
        assert levels.dtype == torch.uint8 and torch.equal(levels, expected[1])
    assert len(backend.graphs) == 1
    assert backend.compile_function(frame_like)(image, weights, weights)[1].dtype == torch.uint8  # no step: eager
