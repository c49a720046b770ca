"""Dreams as ONNX files, which run without streamdream: a step, or a whole frame; each is described in the file, and is
compared with eager in ONNX Runtime before it is written.
"""
from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from streamdream import backends
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, flatten_targets, onnx_export
from streamdream.backends.engine import FLOOR_COSINE, MIN_COSINE, EngineRequest, cosine
from streamdream.backends.onnx_export import DREAM, PICTURE, PIXELS, STEP_SIZE
from streamdream.dream import onnx_frame, reference_images
from streamdream.dream.dreamer import find_targets
from streamdream.dream.reference_images import NO_REFERENCES
from streamdream.errors import EngineError

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

DREAM_FACTS = ("layers", "channel", "guide", "style", "style_weight", "style_layers", "tv", "l2", "smooth", "color",
               "palette", "equalize", "step_size", "steps", "octaves", "octave_scale", "jitter")
"""Settings that a file says; they are in its graph, or for what comes between its steps."""
WEIGHTS = "weight of each channel of the layer; has a default"
USE_STEP = (
    "To dream a picture: scale it to {size}; make it RGB, NCHW, float32, -1..1. Repeat some 20 times: move it by a "
    "random number of pixels, at most `jitter`, down and right, with what leaves one side coming in at the other; run "
    "this file; move the result back. A file is for one size. For octaves, export one for each: dream the coarsest "
    "first, then add what it has changed, scaled up, to the picture at the next size.")


class OnnxFile(NamedTuple):
    """The bytes of a file, and its inputs and outputs: name -> (type, shape, what it is)."""

    data: bytes
    tensors: dict[str, tuple[str, list[int], str]]


def step_file(model: Model, settings: DreamSettings, height: int, width: int, precision: str) -> OnnxFile:
    """Return a step for pictures of that size, checked in ONNX Runtime against eager.

    Its inputs are the picture and the step size; weights of layers are inputs with a default, targets of a guide or a
    style are constants. Raises UsageError, MissingPackage, or EngineError if ONNX Runtime computes another step.
    """
    backend: Any = backends.create("onnx", model, "cpu", precision)
    objective = objectives.from_settings(settings, model)
    spec = StepSpec(objective.structure, height, width, GradientShape.of(settings))
    references = reference_images.read(replace(settings, mask=""))
    targets = tuple(find_targets(model, backend, term, references if term.needs else NO_REFERENCES, height, width)
                    for term, _ in objective.terms)
    traced, names = onnx_export.trace(model, spec, precision, targets), onnx_export.target_names(objective, targets)
    proto, notes = onnx_export.convert_step(traced, names), {
        PICTURE: PIXELS, DREAM: PIXELS,
        STEP_SIZE: f"mean length of the step, 0.0001..0.5; {settings.step_size} is that of the settings"}
    for name, target in zip(names, flatten_targets(targets), strict=True):
        changeable = name.startswith("weights_")
        onnx_export.set_default(proto, name, target, changeable)
        if changeable:
            notes[name] = WEIGHTS
    file = _finish(proto, model, settings, precision, f"{width}x{height}", USE_STEP, notes)
    picture = torch.Size((1, 3, height, width))
    run = backend.deserialize(file.data, picture)
    backend.verify(lambda given, step_size, *_: run(given, step_size), EngineRequest(spec, picture, targets))
    return file


def frame_file(model: Model, settings: DreamSettings, height: int, width: int, field_height: int, precision: str
               ) -> OnnxFile:
    """Return the whole way of a frame of that size, checked in ONNX Runtime against eager.

    Its inputs are the frame, random shifts and the state; its outputs the dream and the next state. Numbers and weights
    of layers are inputs with a default; mask, guide and style are constants. Raises as ``step_file``.
    """
    backend: Any = backends.create("onnx", model, "cpu", precision)
    made = onnx_frame.trace(model, backend, settings, height, width, field_height, precision)
    proto = onnx_export.convert(made.traced.export(), made.names, [DREAM, *onnx_frame.NEXT])
    for name, value in made.defaults.items():
        onnx_export.set_default(proto, name, value, changeable=True)
    notes = {**onnx_frame.NOTES, **{f"next_{name}": f"`{name}` of the next frame" for name in onnx_frame.STATE},
             **{name: WEIGHTS for name in made.names if name.startswith("weights_")}}
    file = _finish(proto, model, settings, precision, f"{width}x{height}", onnx_frame.USE, notes)
    _verify_frame(backend.open_session(file.data), made, settings.jitter, precision)
    return file


def _verify_frame(session: Any, made: onnx_frame.FrameGraph, jitter: int, precision: str) -> None:
    """Compare the residuals of two frames, a first one and a next one, each from the same state."""
    threshold, state = MIN_COSINE if precision == "fp32" else FLOOR_COSINE, dict(made.start)
    for frame in onnx_frame.example_frames(made, 2, jitter):
        state |= frame
        with torch.no_grad():
            expected = made.traced.module(*state.values(), *made.defaults.values())
        residual = session.run(["next_residual"], {name: value.numpy() for name, value in state.items()})[0]
        similarity = cosine(torch.from_numpy(residual), expected[1])
        if not similarity >= threshold:
            raise EngineError(f"ONNX Runtime does not compute the frame right here: cosine {similarity:.3f} to "
                              f"eager's, {threshold:.3f} is the least; please report this")
        state |= dict(zip(onnx_frame.STATE, expected[1:], strict=True))


def _finish(proto: Any, model: Model, settings: DreamSettings, precision: str, size: str, usage: str,
            notes: dict[str, str]) -> OnnxFile:
    tensors = {part.name: (*_type_of(part), notes[part.name]) for part in (*proto.graph.input, *proto.graph.output)}
    facts = onnx_export.model_facts(model, precision) | {
        "size": size, **{name: str(getattr(settings, name)) for name in DREAM_FACTS},
        "tensors": json.dumps(tensors), "usage": usage.format(size=size)}
    onnx_export.describe(proto, facts, notes)
    return OnnxFile(proto.SerializeToString(), tensors)


def _type_of(part: Any) -> tuple[str, list[int]]:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = part.type.tensor_type
    return str(tensor_dtype_to_np_dtype(tensor.elem_type)), [axis.dim_value for axis in tensor.shape.dim]
