"""How far a backend's step is from plain autograd: every network, size, objective and kind of picture, one step each.

``error`` is the norm of the difference over that of the step, ``cosine`` that between the two moves; the worst picture
of a row is shown. ``graph`` is the recorded graph run by PyTorch: in float32 against autograd through the values that
it has itself, as eager is (``plain.FORWARDS``), in float64 against autograd of the network as it is written. An engine
that adds in another order flips a ReLU or a pool here and there. How much of that there is anyway the row of ``plain
autograd`` shows: autograd in float32 against itself in float64.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from streamdream import backends, models
from streamdream.ascent import objectives
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
"""One network of each architecture, and a layer of it."""
STEP_SIZE = 0.02
Take = Callable[["Tensor", float], "Tensor"]


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
    for kind, given in kinds.items():
        settings = DreamSettings(**given)
        yield kind, StepSpec(objectives.from_settings(settings, model), height, width, settings.smooth, settings.color)


def pictures(height: int, width: int) -> dict[str, Tensor]:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    halves = noise.clone()
    halves[..., : width // 2] = 0.3
    found = {"random": noise, "flat areas": halves, "quantised": (noise * 4).round() / 4,
             "constant": torch.full_like(noise, 0.2),
             "textured": natural_noise(torch.Size((1, 3, height, width)), torch.device("cpu"))}
    return {name: picture.contiguous(memory_format=torch.channels_last) for name, picture in found.items()}


def compare(options: Options, model: Model, spec: StepSpec) -> Iterator[dict[str, Any]]:
    """A row for the graph and one for each backend and precision; and how much is rounding."""
    cpu = torch.device("cpu")
    exact, rounded = (Plain(model, cpu, dtype).compile(spec) for dtype in (torch.float64, torch.float32))
    alike = {forward: Plain(model, cpu, forward=forward).compile(spec) for forward in ("graph", "eager")}
    for precision, dtype, reference in (("fp32", torch.float32, alike["graph"]), ("fp64", torch.float64, exact)):
        yield {"backend": "graph", "precision": precision, **worst(spec, reference, by_itself(model, spec, dtype))}
    yield {"backend": "plain autograd", "precision": "fp32", **worst(spec, exact, rounded)}
    names = [options.backend] if options.backend != "auto" else [
        name for name in ("eager", "openvino", "tensorrt") if backends.available(name)[0]]
    for name in names:
        half = backends.create(name, model, options.device).precision
        for precision in dict.fromkeys(("fp32", half)):
            step = backends.create(name, model, options.device, precision).compile(spec)
            try:
                found = worst(spec, alike.get(name, alike["graph"]), step)
            except EngineError as error:
                found = {"refused": str(error)}
            yield {"backend": name, "precision": precision, **found}


def by_itself(model: Model, spec: StepSpec, dtype: torch.dtype) -> Take:
    """The graph without an engine."""
    recorded = graph.build(model, spec, dtype).module
    return lambda picture, step_size: recorded(picture, torch.full((1,), step_size))


def worst(spec: StepSpec, reference: Take, step: Take) -> dict[str, Any]:
    """Over the pictures. Where nothing moves (a constant picture has no gradient but at its edges) both must not."""
    errors, cosines = {}, {}
    for kind, picture in pictures(spec.height, spec.width).items():
        expected, taken = reference(picture, STEP_SIZE) - picture, step(picture, STEP_SIZE).cpu() - picture
        errors[kind] = float((taken - expected).norm() / expected.norm().clamp(min=1e-12))
        cosines[kind] = cosine(taken, expected)
    kind = max(errors, key=lambda name: errors[name])
    return {"error": errors[kind], "error_at": kind, "cosine": min(cosines.values()),
            "cosine_at": min(cosines, key=lambda name: cosines[name]), "cosine_textured": cosines["textured"]}
