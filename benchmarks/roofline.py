"""What a frame costs at least on a GPU, without one: its operations, their arithmetic and the memory that they move.

The frame function runs on PyTorch's device "meta", which knows shapes only: it takes the way of an accelerator, and
whatever would wait for a result raises there. An operation takes at least the larger of its arithmetic at the peak rate
and its memory at the peak bandwidth, and no kernel less than KERNEL_SECONDS (Williams et al. 2009, "Roofline"). Views
cost nothing. As caches are left out, a GPU can be faster in what is bound by memory.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from streamdream import models
from streamdream.backends.eager import Eager
from streamdream.settings import DreamSettings

from . import LAYERS, Options, Progress, Report, conditions
from .frame_program import FrameProgram, cases

KERNEL_SECONDS = 2e-6
"""From the start of one small kernel in a CUDA graph to that of the next, roughly."""


@dataclass(frozen=True)
class Gpu:
    """Peak rates, dense: in operations with fp16 and with float32 numbers per second, and in bytes per second."""

    fp16: float
    fp32: float
    bandwidth: float


GPUS = {"H200": Gpu(989e12, 67e12, 4.8e12), "RTX 4090": Gpu(165e12, 83e12, 1.01e12),
        "RTX 3060": Gpu(51e12, 13e12, 0.36e12)}
"""NVIDIA's data sheets, without sparsity; fp16 with float32 sums."""


FREE = ("aten.detach.default", "aten._unsafe_view.default", "aten.alias.default", "aten.new_empty.default")


@dataclass
class Operation:
    name: str
    flop: int
    nbytes: int
    half: bool

    def seconds(self, gpu: Gpu) -> float:
        """The least time on ``gpu``, with no limit to how short a kernel can be."""
        return max(self.flop / (gpu.fp16 if self.half else gpu.fp32), self.nbytes / gpu.bandwidth)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that compute or move anything."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if not _is_free(operation):
            count = flop_registry.get(operation.overloadpacket)
            flop = count(*args, **(kwargs or {}), out_val=result) if count else 0
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.operations.append(Operation(str(operation), flop, sum(tensor.nbytes for tensor in tensors),
                                             any(tensor.dtype.itemsize == 2 for tensor in tensors)))
        return result


def _is_free(operation: Any) -> bool:
    """Whether it is a view, or takes memory only."""
    name = str(operation)
    return bool(operation.is_view) or name.startswith("aten.empty") or name in FREE


def record(work: Callable[[], object]) -> list[Operation]:
    recorder = Recorder()
    with recorder, torch.no_grad():
        work()
    return recorder.operations


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each case and part of the frame."""
    settings, model = DreamSettings(layers=options.layers or LAYERS), models.get(options.model)
    precision = "fp16" if options.precision == "auto" else options.precision
    backend, rows = Eager(model, torch.device("meta"), precision), []
    for case in cases(options):
        progress(f"{case.width}x{case.height}, {case.field[0]} lines")
        made = FrameProgram.of(model, backend, settings, case)
        made.whole()  # constants are made at the first call
        matched = made.match()
        parts: dict[str, Callable[[], object]] = {
            "match": made.match, "warp and ascend": partial(made.advance, matched), "frame": made.whole}
        for part, work in parts.items():
            rows.append({**case.columns(), "part": part, **summarize(record(work)),
                         "bytes_up": made.bytes_up, "bytes_down": made.bytes_down})
    return Report("roofline", conditions(precision=precision, layers=settings.layers, device="meta",
                                         kernel_us=1e6 * KERNEL_SECONDS), rows)


def summarize(operations: list[Operation]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "operations": len(operations), "products": sum(operation.flop > 0 for operation in operations),
        "host_waits": sum("_local_scalar_dense" in operation.name for operation in operations),
        "gflop": round(sum(operation.flop for operation in operations) / 1e9, 2),
        "mb_moved": round(sum(operation.nbytes for operation in operations) / 1e6, 1)}
    for name, gpu in GPUS.items():
        least = [operation.seconds(gpu) for operation in operations]
        row[f"{name}_ms"] = round(1e3 * sum(least), 3)
        row[f"{name}_with_kernels_ms"] = round(1e3 * sum(max(KERNEL_SECONDS, seconds) for seconds in least), 3)
    return row
