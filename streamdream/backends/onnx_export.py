"""Steps as ONNX files: the graph of ``graph.build`` in standard operations of opset 20, with a description in the file.

    Graph ──torch.onnx.export──▶ ModelProto ──set_default, describe──▶ one file with its weights
"""
from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

import streamdream
from streamdream.backends import graph
from streamdream.backends.precision import DTYPES
from streamdream.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Term
    from streamdream.backends import AllTargets, StepSpec
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

OPSET = 20
MAX_BYTES = (1 << 31) - 1
"""Of one file of Protocol Buffers."""
PICTURE, STEP_SIZE, DREAM = "picture", "step_size", "dream"
PIXELS = "RGB, NCHW, -1..1: a byte is 127.5 * value + 127.5"


def _max_pool_backward(gradient: Tensor, x: Tensor, *rest: Any) -> Tensor:
    """Compare in float32. Where ONNX Runtime has no fp16 operation, it leaves out the rounding to fp16 here and there:
    what it compares with the maximum of a window must have come the same way as that.
    """
    return graph.max_pool_backward(gradient, x.float(), *rest)


CHANGES = {torch.ops.aten.max_pool2d_with_indices_backward.default: _max_pool_backward}
"""Rows of ``graph.TABLE`` that differ in ONNX files."""


def trace(model: Model, spec: StepSpec, precision: str, targets: AllTargets = (), batch: int = 1,
          device: torch.device | None = None) -> Graph:
    """Trace a step as ``graph.build`` does, for an ONNX file."""
    return graph.build(model, spec, DTYPES[precision], targets, device, batch, CHANGES)


def convert(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Convert an exported program to an ``onnx.ModelProto`` whose inputs and outputs have these names.

    Without the notes of PyTorch's exporter, which hold paths of this machine. Raises EngineError above 2 GB.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of deprecated parts of PyTorch
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # of constants that its optimisation leaves alone
        exported: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=True, verbose=False,
                                          input_names=list(inputs), output_names=list(outputs))
        proto = exported.model_proto
    if proto.ByteSize() > MAX_BYTES:
        raise EngineError("the ONNX file would have more than 2 GB; another layer or a smaller size needs less")
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def convert_step(traced: Graph, inputs: Sequence[str] = ()) -> Any:
    """Convert the graph of a step: (picture, step_size, *targets) -> dream. ``inputs`` name the targets."""
    inputs = inputs or [f"target_{number}" for number in range(len(traced.inputs) - 2)]
    return convert(traced.export(), [PICTURE, STEP_SIZE, *inputs], [DREAM])


def set_default(proto: Any, name: str, value: Tensor, changeable: bool) -> None:
    """Give an input a value. Where it is ``changeable``, a run may still be given another one."""
    from onnx import numpy_helper

    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(value.detach().cpu().contiguous().numpy(), name))
    if not changeable:
        graph.input.remove(next(given for given in graph.input if given.name == name))


def describe(proto: Any, facts: Mapping[str, str], notes: Mapping[str, str]) -> None:
    """Write ``facts`` to the metadata of the file, and ``notes`` to the inputs and outputs of those names."""
    import onnx

    onnx.helper.set_model_props(proto, dict(facts))
    proto.producer_name, proto.producer_version = "streamdream", streamdream.__version__
    proto.doc_string = facts.get("usage", "")
    for part in (*proto.graph.input, *proto.graph.output):
        part.doc_string = notes.get(part.name, "")


def model_facts(model: Model, precision: str) -> dict[str, str]:
    """What a file must say of the network in it: where its weights are from, and what they may be used for."""
    path = model.weights_path()
    return {"streamdream": streamdream.__version__, "model": model.name, "about": model.about,
            "licence": model.licence, "precision": precision,
            "weights_source": model.sources[0].url if model.sources else "in the package streamdream",
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""}


def target_names(objective: Objective, targets: AllTargets) -> list[str]:
    """Name the targets of an objective, such as ``weights_mixed5``; in the order of ``flatten_targets``."""
    names: list[str] = []
    for (term, _), of_term in zip(objective.terms, targets, strict=True):
        for tap, _target in zip(_taps_of_targets(term), of_term, strict=True):
            name = f"{term.needs or 'weights'}_{tap.replace('/', '_')}"
            names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _taps_of_targets(term: Term) -> list[str]:
    """A guide has a target for each layer that is named, also if one is named twice."""
    weights = getattr(term, "weights", ()) if term.needs else ()
    return [layer.name for layer in weights] or list(term.taps)
