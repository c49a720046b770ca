"""The step's graph through PyTorch's compiler: what lies between convolutions becomes a few fused loops.

The first step of every size and objective takes 10 to 40 seconds on two cores (a later run finds most of it in
PyTorch's own cache), so it is for long runs, and used only when it is asked for.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import graph
from streamdream.backends.eager import DTYPES, Eager

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec


class Compiled(Eager):
    """Runs the graph of ``graph.build``; what the graph cannot do (tiles, targets) is done as eager does it."""

    name = "compiled"

    @staticmethod
    def available() -> tuple[bool, str]:
        from torch._inductor import exc
        from torch._inductor.cpp_builder import get_cpp_compiler

        if torch.cuda.is_available():
            return True, "PyTorch's compiler"
        try:
            return True, f"PyTorch's compiler with {get_cpp_compiler()}"
        except (exc.InvalidCxxCompiler, RuntimeError, OSError):
            return False, "PyTorch's compiler needs a C++ compiler; on Debian: apt-get install g++"

    def compile(self, spec: StepSpec) -> Step:
        self.check_size(spec)
        compiled: dict[Any, Callable[..., Tensor]] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            flat = [target for own in targets for target in own]
            shapes = tuple(tuple(target.shape) for target in flat)  # a guide video may change its size
            if shapes not in compiled:
                compiled[shapes] = self._build(spec, targets)
            picture = picture.to(self.device).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                return compiled[shapes](picture, torch.full((1,), step_size, device=self.device), *flat)

        return step

    def _build(self, spec: StepSpec, targets: AllTargets) -> Callable[..., Tensor]:
        recorded = graph.build(self.model, spec, DTYPES[self.precision], targets, self.device)
        options: dict[str, Any] = {"freezing": True}  # weights are constants, laid out once
        if self.device.type == "cuda":
            options["triton.cudagraphs"] = True
        run = torch.compile(recorded.module, fullgraph=True, dynamic=False, options=options)

        def first(*arguments: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's own
                found: Tensor = run(*arguments)
            # a CUDA graph writes its next result to the same place
            return found.clone() if found.is_cuda else found

        return first
