"""Compile the graph of the step by PyTorch's compiler, which fuses the operations between convolutions.

The first step of each size and objective takes 20 to 60 seconds on two cores, less when PyTorch's cache has most of it,
so this backend is for long runs.
"""
from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import graph
from streamdream.backends.cuda_graphs import GraphedCallable
from streamdream.backends.eager import Eager
from streamdream.backends.engine import EngineBackend
from streamdream.backends.evictable import LoadedEngine

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

CXX = {"darwin": "clang++", "win32": "cl"}
"""The compiler that PyTorch looks for if CXX is not set. Its own check takes four seconds, as it loads the compiler."""
CONSTANTS_FACTOR = 2
"""Estimated memory of an engine relative to the graph's constants: those, and the compiler's packed copies."""
log = logging.getLogger(__name__)


class Compiled(EngineBackend):
    """Runs the graph through ``torch.compile``; on a GPU as one CUDA graph."""

    name = "compiled"

    @staticmethod
    def available() -> tuple[bool, str]:
        if torch.cuda.is_available():
            return True, "PyTorch's compiler"
        compiler = shutil.which(os.environ.get("CXX") or CXX.get(sys.platform, "g++"))
        if compiler is None:
            return False, "PyTorch's compiler needs a C++ compiler; on Debian: apt-get install g++"
        return True, f"PyTorch's compiler with {compiler}"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        super().__init__(Eager(model, device, precision))

    def build_engine(self, traced: Graph) -> LoadedEngine:
        height, width = traced.inputs[0].shape[2:]
        log.info("compiling a step of %dx%d: up to a minute, less the next time", width, height)
        constants = sum(tensor.nbytes for tensor in traced.module.buffers())
        return LoadedEngine(self._compile(traced), CONSTANTS_FACTOR * constants)

    def compile_function(self, work: Callable[..., Any], objectives: Sequence[Objective] = ()) -> Callable[..., Any]:
        """Return ``work``, a function of tensors without branches, compiled as a whole at its first call."""
        compiled: dict[tuple[torch.Size, ...], Callable[..., Any]] = {}

        def run(*inputs: Tensor) -> Any:
            shapes = tuple(tensor.shape for tensor in inputs)
            if shapes not in compiled:
                log.info("compiling a whole frame: up to two minutes, less the next time")
                with torch.no_grad():
                    compiled[shapes] = self._compile(graph.trace(work, inputs))
            return compiled[shapes](*inputs)

        return run

    def _compile(self, traced: Graph) -> Callable[..., Any]:
        # freezing: weights are constants, laid out once
        run = torch.compile(traced.module, fullgraph=True, dynamic=False, options={"freezing": True})

        def engine(*arguments: Tensor) -> Any:
            with warnings.catch_warnings(), torch.no_grad():  # as in a dream; else it is compiled twice
                warnings.simplefilter("ignore")  # warnings of the compiler itself
                return run(*arguments)

        engine(*traced.inputs)
        return GraphedCallable(engine, self.device) if self.device.type == "cuda" else engine
