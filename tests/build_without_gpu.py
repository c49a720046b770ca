"""Builds TensorRT engines of steps and of whole frames where there is no GPU, and prints what came of each as a line of
JSON.

    python tests/build_without_gpu.py "MODEL;LAYERS;PRECISION;KIND" ...

A process of its own (one for all, as loading takes longest), as it tells PyTorch lies about a GPU: Torch-TensorRT-RTX
asks for one, but builds without. What it builds can be run on a GPU only. KIND is "dream", "guide" or "style" of a
step, or "frame" of all that is done with a frame; "frame network" converts that and builds no engine, which takes most
of a minute. The case "unknown" is an operation that none converts.
"""
from __future__ import annotations

import json
import logging
import sys
import warnings
from dataclasses import replace
from typing import Any

import torch

torch.cuda.get_device_capability = lambda *_: (8, 0)
torch.cuda.current_device = lambda: 0
torch.cuda.mem_get_info = lambda *_: (8 << 30, 8 << 30)
warnings.simplefilter("ignore")

import torch_tensorrt
from streamdream_bench.frame_program import Case, FrameProgram
from torch_tensorrt.dynamo import partitioning
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._conversion import infer_module_output_dtypes
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter
from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering, pre_export_lowering

from streamdream import models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, graph
from streamdream.backends.eager import Eager
from streamdream.backends.engine import EngineBackend
from streamdream.backends.evictable import LoadedEngine
from streamdream.backends.graph import Graph
from streamdream.backends.precision import DTYPES
from streamdream.backends.tensorrt import without_bytes
from streamdream.models.network import Network
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

SIZE = 131, 171
FRAME = Case(320, 240, 144)
KINDS: dict[str, dict[str, Any]] = {
    "dream": {}, "guide": {"guide": "a.png"}, "style": {"style": "a.png", "style_weight": 1.0, "tv": 0.1, "l2": 0.1}}


class Errors(logging.Handler):
    """Keeps what TensorRT logs as an error: it builds on after some."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def build(name: str, layers: str, precision: str, kind: str) -> dict[str, Any]:
    model = models.get(name)
    stored = random_weights(model.nodes())
    model = replace(model, load_weights=lambda: stored)
    objective = objectives.from_settings(DreamSettings(layers=layers, **KINDS[kind]), model)
    network = Network(model.nodes(), stored, objective.taps, torch.device("cpu"), torch.float32)
    shown = {need: torch.rand(1, 3, 96, 112) for need in ("guide", "style")}
    targets = tuple(tuple(found.to(DTYPES[precision]) if term.needs == "guide" else found for found in term.targets(
        lambda picture: network(model.to_input(picture)), shown)) for term, _ in objective.terms)
    recorded = graph.build(model, StepSpec(objective, *SIZE, GradientShape(1.0, 0.4)), DTYPES[precision], targets)
    return convert(recorded.export(), recorded.inputs)


class Traced(EngineBackend):
    """Traces a whole frame as TensorRT's backend does, which a machine without a GPU cannot make."""

    name = "traced"

    def build_engine(self, recorded: Graph) -> LoadedEngine:
        raise NotImplementedError

    def compile_function(self, work: Any, objectives: Any = ()) -> Any:
        return lambda *inputs: without_bytes(graph.trace(work, inputs))


def build_frame(name: str, layers: str, precision: str, engine: bool = True) -> dict[str, Any]:
    model = models.get(name)
    stored = random_weights(model.nodes())
    model = replace(model, load_weights=lambda: stored)
    backend = Traced(Eager(model, "cpu", precision))
    with torch.no_grad():
        recorded: Any = FrameProgram.of(model, backend, DreamSettings(layers=layers), FRAME).whole()
    return convert(recorded.export(), recorded.inputs, engine)


class Unknown(torch.nn.Module):
    """What a step must never hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + torch.special.i0(x)
        return found


def convert(exported: torch.export.ExportedProgram, example: tuple[torch.Tensor, ...], engine: bool = True
            ) -> dict[str, Any]:
    settings = CompilationSettings(device=torch_tensorrt.Device(gpu_id=0))
    lowered = pre_export_lowering(exported, settings).run_decompositions(get_decompositions())
    graph_module = post_lowering(lowered.module(), settings)
    DYNAMO_CONVERTERS.set_compilation_settings(settings)
    convertible, total = partitioning.get_graph_converter_support(graph_module, set())
    unknown = sorted({str(node.target) for node in graph_module.graph.nodes
                      if node.op == "call_function" and node not in DYNAMO_CONVERTERS})
    found = {"convertible": convertible, "total": total, "unknown": unknown, "bytes": 0, "errors": []}
    if convertible == total:
        errors = Errors()
        logging.getLogger("torch_tensorrt [TensorRT Conversion Context]").addHandler(errors)
        logging.getLogger().addHandler(errors)
        interpreter = TRTInterpreter(
            graph_module, [torch_tensorrt.Input(tuple(x.shape), dtype=x.dtype) for x in example],
            output_dtypes=infer_module_output_dtypes(graph_module), compilation_settings=settings)
        interpreter._construct_trt_network_def()
        built = interpreter.builder.build_serialized_network(
            interpreter.ctx.net, interpreter._populate_trt_builder_config()) if engine else None
        found |= {"bytes": 0 if built is None else built.nbytes, "errors": errors.lines}
    return found


if __name__ == "__main__":
    for case in sys.argv[1:]:
        if case == "unknown":
            given = (torch.rand(1, 8),)
            made = convert(torch.export.export(Unknown(), given), given)
        else:
            name, layers, precision, kind = case.split(";")
            made = build_frame(name, layers, precision, kind == "frame") if kind.startswith("frame") else \
                build(name, layers, precision, kind)
        print(json.dumps({"case": case, **made}), flush=True)
