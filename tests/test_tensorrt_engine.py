"""Loading and running an engine, against a stand-in for TensorRT's runtime that has its documented calls."""
from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamdream.backends import tensorrt
from streamdream.backends.tensorrt import TensorRtEngine
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
    runtime = SimpleNamespace(Runtime=Runtime, Logger=logger, TensorIOMode=SimpleNamespace(INPUT="in"))
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
