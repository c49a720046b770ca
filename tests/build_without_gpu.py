"""Builds TensorRT engines of steps and of whole frames where there is no GPU, and prints what came of each as a line of
JSON.

    python tests/build_without_gpu.py "MODEL;LAYERS;PRECISION;KIND" ...

A process of its own (one for all, as loading takes longest), as it tells PyTorch lies about a GPU: Torch-TensorRT-RTX
asks for one, but builds without. What it builds can be run on a GPU only. KIND is "dream", "guide" or "style" of a
step, or "frame" of all that is done with a frame; the case "unknown" is an operation that none converts.
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
from torch_tensorrt.dynamo import partitioning
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._conversion import infer_module_output_dtypes
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter
from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering, pre_export_lowering

from streamdream import models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, flatten_targets, graph
from streamdream.backends.graph import Graph
from streamdream.backends.precision import DTYPES
from streamdream.dream import device_frame
from streamdream.dream.device_frame import FrameSpec, FrameState
from streamdream.dream.device_trust import lasting_shape
from streamdream.dream.octaves import octave_sizes
from streamdream.media import device_compose
from streamdream.models.network import Network
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

SIZE = 131, 171
FRAME, FIELD = (240, 320), (144, 192)
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
    settings = DreamSettings(layers=layers, **KINDS.get(kind, {}))
    objective = objectives.from_settings(settings, model)
    network = Network(model.nodes(), stored, objective.taps, torch.device("cpu"), torch.float32)
    shown = {need: torch.rand(1, 3, 96, 112) for need in ("guide", "style")}
    targets = tuple(tuple(found.to(DTYPES[precision]) if term.needs == "guide" else found for found in term.targets(
        lambda picture: network(model.to_input(picture)), shown)) for term, _ in objective.terms)
    sizes = octave_sizes(*FIELD, settings.octaves, settings.octave_scale) if kind == "frame" else [SIZE]
    steps = [graph.build(model, StepSpec(objective, *size, GradientShape(1.0, 0.4)), DTYPES[precision], targets)
             for size in sizes]
    if kind != "frame":
        return convert(steps[0].export(), steps[0].inputs)
    return convert_frame(WholeFrame(settings, sizes, steps), targets)


class WholeFrame(torch.nn.Module):
    """(image, state, numbers, shifts, targets) -> state but for ``started``, dream: ``device_program`` as one module.

    The dream is [N, 3, H, W] in float32, of whole numbers: Torch-TensorRT converts nothing to uint8.
    """

    def __init__(self, settings: DreamSettings, sizes: list[tuple[int, int]], steps: list[Graph]) -> None:
        super().__init__()
        self.spec = FrameSpec(FIELD, tuple(sizes), settings.steps, "lucas-kanade", settings.trust,
                              settings.legibility > 0, settings.stillness > 0, portable=True)
        self.settings, self.steps = settings, torch.nn.ModuleList(step.module for step in steps)

    def forward(self, image: torch.Tensor, grey: torch.Tensor, residual: torch.Tensor, doubt: torch.Tensor,
                maturity: torch.Tensor, started: torch.Tensor, values: torch.Tensor, shifts: torch.Tensor,
                *targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def on_octave(step: torch.nn.Module) -> Any:
            return lambda picture, step_size, _: step(picture, step_size.reshape(1), *targets)

        spec, numbers = self.spec, device_frame.unpack(values)
        field, found = device_frame.match_frame(spec, image, grey, started, numbers.cut)
        state = FrameState(residual, found.reference, doubt, maturity, started)
        begun = device_frame.begin(spec, field, found, state, numbers)
        dreamed = device_frame.ascend_pass(spec, [on_octave(step) for step in self.steps], begun.seed, begun.gain,
                                           begun.step_size, shifts)
        residual, doubt, maturity = device_frame.finish(spec, field, begun, dreamed, numbers)
        levels = device_compose.upscale(residual * (numbers.strength * 127.5), *FRAME)
        thresholds = device_compose.dither_thresholds(*FRAME, 0, 3, image.device)
        dream = (image.float().permute(0, 3, 1, 2) + levels + thresholds).clamp(0, 255).floor()
        return residual, found.reference, doubt, maturity, dream


def convert_frame(frame: WholeFrame, targets: Any) -> dict[str, Any]:
    steps = len(frame.spec.octaves) * frame.spec.steps
    given = (torch.randint(256, (1, *FRAME, 3), dtype=torch.uint8), torch.zeros(1, 1, *FIELD),
             torch.zeros(1, 3, *FIELD), torch.ones(1, 1, *lasting_shape(*FIELD)), torch.zeros(1, 1, *FIELD),
             torch.ones(1, 1, 1, 1), torch.tensor([device_frame.numbers_of(frame.settings, False)]),
             torch.randint(-9, 9, (steps, 2)), *flatten_targets(targets))
    with torch.no_grad():
        frame(*given)  # constants are made at the first call
        return convert(torch.export.export(frame, given, strict=False), given)


class Unknown(torch.nn.Module):
    """What a step must never hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + torch.special.i0(x)
        return found


def convert(exported: torch.export.ExportedProgram, example: tuple[torch.Tensor, ...]) -> dict[str, Any]:
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
        engine = interpreter.builder.build_serialized_network(interpreter.ctx.net,
                                                              interpreter._populate_trt_builder_config())
        found |= {"bytes": 0 if engine is None else engine.nbytes, "errors": errors.lines}
    return found


if __name__ == "__main__":
    for case in sys.argv[1:]:
        if case == "unknown":
            given = (torch.rand(1, 8),)
            made = convert(torch.export.export(Unknown(), given), given)
        else:
            made = build(*case.split(";"))
        print(json.dumps({"case": case, **made}), flush=True)
