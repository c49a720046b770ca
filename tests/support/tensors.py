"""Arrays as tensors and back, and what a function of tensors must not do to run in a recorded graph."""
from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "item", "nonzero", "equal", "masked_select", "unique", "lift_fresh", "allclose")
"""Operations that read a value, whose shape depends on values, or that bring a value from the host."""


def planes(array: NDArray[Any]) -> Tensor:
    """[h, w] or [h, w, C] -> float32 [1, C, h, w]."""
    hwc = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(hwc.transpose(2, 0, 1)[None], np.float32))


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """[1, C, h, w] -> [h, w, C], or [h, w] where C is 1."""
    found: NDArray[np.float32] = tensor[0].permute(1, 2, 0).numpy()
    return found[..., 0] if found.shape[2] == 1 else found


def numbers(*values: float) -> Tensor:
    """One number for each stream: [N, 1, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


class NoHostWait(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails at an operation that would wait for the host on a device. ``count`` is that of the operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS and not (name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1])), f"{func} waits for the host"
        self.count += 1
        return func(*args, **(kwargs or {}))


class Module(torch.nn.Module):
    """A function as a module, for exports."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def run_by_onnx(function: Callable[..., Sequence[Tensor]], inputs: tuple[Tensor, ...]) -> list[NDArray[np.float32]]:
    """Export the function, whose constants have been made by a call, and return the answers of ONNX Runtime."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of deprecated parts of PyTorch
        exported = torch.export.export(Module(function), inputs, strict=False)
        program = torch.onnx.export(exported, dynamo=True, opset_version=20, verbose=False)
        assert program is not None
        program.save(f"{folder}/function.onnx")
        session = onnxruntime.InferenceSession(f"{folder}/function.onnx", providers=["CPUExecutionProvider"])
    names = [declared.name for declared in session.get_inputs()]
    answers: list[NDArray[np.float32]] = session.run(
        None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return answers
