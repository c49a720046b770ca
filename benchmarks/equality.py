"""Compare one step of each backend with autograd, for every architecture, several sizes, objectives and pictures.

``error`` is the norm of the difference of the two updates, relative to autograd's; ``cosine`` is their cosine
similarity. Rows show the worst picture. ``graph`` is the recorded graph, run by PyTorch: in float32 it is compared with
autograd through the same forward pass, as eager is (``plain.FORWARDS``); in float64 with autograd of the network as
written. An engine that sums in another order changes the result of some ReLUs and pools. The row ``plain autograd``
shows the size of that effect: it compares autograd in float32 with autograd in float64.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, graph
from streamdream.backends.engine import cosine, natural_noise
from streamdream.errors import EngineError
from streamdream.settings import DreamSettings

from . import Options, Progress, Report, conditions
from .plain import Plain
from .step import with_weights

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model

SIZES = ((240, 320), (243, 321), (360, 640))
LAYERS = {"inception_v3": "mixed3", "bvlc_googlenet": "inception_4c/output", "cars_googlenet": "inception_4a_output",
          "inception5h": "mixed4b", "torchvision_googlenet": "inception4a", "torchvision_inception_v3": "Mixed_6b",
          "keras_inception_v3": "mixed8"}
"""One model of each architecture -> one of its layers."""
STEP_SIZE = 0.02
StepFunction = Callable[["Tensor", float], "Tensor"]
"""(picture, step size) -> the picture after the step."""


def run(options: Options, progress: Progress) -> Report:
    sizes = ((options.height, options.width),) if options.height and options.width else SIZES
    rows = []
    for name, layers in LAYERS.items():
        model, weights = with_weights(models.get(name))
        for height, width in sizes:
            progress(f"{name} at {width}x{height}")
            for kind, spec in specs(model, layers, height, width):
                for row in compare(options, model, spec):
                    rows.append({"model": name, "weights": weights, "layers": layers, "size": f"{width}x{height}",
                                 "objective": kind, **row})
                    progress(f"  {kind}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    return Report("equality", conditions(step_size=STEP_SIZE), rows)


def specs(model: Model, layers: str, height: int, width: int) -> Iterator[tuple[str, StepSpec]]:
    lower = next(iter(model.taps()))
    kinds: dict[str, dict[str, Any]] = {
        "layer": {"layers": layers}, "two layers, channels": {"layers": f"{layers}:1,{lower}:0.5", "channel": "1,5"},
        "with variation": {"layers": f"{layers}:-1", "tv": 0.5, "l2": 0.1}}
    for kind, values in kinds.items():
        settings = DreamSettings(**values)
        yield kind, StepSpec(objectives.from_settings(settings, model), height, width, GradientShape.of(settings))


def pictures(height: int, width: int) -> dict[str, Tensor]:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    half_flat = noise.clone()
    half_flat[..., : width // 2] = 0.3
    tensors = {"random": noise, "flat areas": half_flat, "quantised": (noise * 4).round() / 4,
               "constant": torch.full_like(noise, 0.2),
               "textured": natural_noise(torch.Size((1, 3, height, width)), torch.device("cpu"))}
    return {name: picture.contiguous(memory_format=torch.channels_last) for name, picture in tensors.items()}


def compare(options: Options, model: Model, spec: StepSpec) -> Iterator[dict[str, Any]]:
    """Yield the rows of the graph, of plain autograd in float32, and of each backend and precision."""
    cpu = torch.device("cpu")
    fp64, fp32 = (Plain(model, cpu, dtype).compile(spec) for dtype in (torch.float64, torch.float32))
    references = {forward: Plain(model, cpu, forward=forward).compile(spec) for forward in ("graph", "eager")}
    for precision, dtype, reference in (("fp32", torch.float32, references["graph"]), ("fp64", torch.float64, fp64)):
        yield {"backend": "graph", "precision": precision, **worst(spec, reference, by_itself(model, spec, dtype))}
    yield {"backend": "plain autograd", "precision": "fp32", **worst(spec, fp64, fp32)}
    names = [options.backend] if options.backend != "auto" else [
        name for name in ("eager", "openvino", "tensorrt") if backends.available(name)[0]]
    for name in names:
        fastest = backends.create(name, model, options.device).precision
        for precision in dict.fromkeys(("fp32", fastest)):
            step = backends.create(name, model, options.device, precision).compile(spec)
            try:
                result = worst(spec, references.get(name, references["graph"]), step)
            except EngineError as error:
                result = {"refused": str(error)}
            yield {"backend": name, "precision": precision, **result}


def by_itself(model: Model, spec: StepSpec, dtype: torch.dtype) -> StepFunction:
    """Return the recorded graph as a step, without an engine."""
    recorded = graph.build(model, spec, dtype).module
    return lambda picture, step_size: recorded(picture, torch.full((1,), step_size))


def worst(spec: StepSpec, reference: StepFunction, step: StepFunction) -> dict[str, Any]:
    """Return the largest error and the smallest cosine over all pictures."""
    errors, cosines = {}, {}
    for kind, picture in pictures(spec.height, spec.width).items():
        expected, actual = reference(picture, STEP_SIZE) - picture, step(picture, STEP_SIZE).cpu() - picture
        errors[kind] = float((actual - expected).norm() / expected.norm().clamp(min=1e-12))
        cosines[kind] = cosine(actual, expected)
    kind = max(errors, key=lambda name: errors[name])
    return {"error": errors[kind], "error_at": kind, "cosine": min(cosines.values()),
            "cosine_at": min(cosines, key=lambda name: cosines[name]), "cosine_textured": cosines["textured"]}
