"""Measure the time of one step, and its rate relative to the matmul rate of the machine.

The matrix product runs in the same process, alternating with the step: speed differs between machines, and from minute
to minute on one machine, but the ratio of the two rates is stable.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import synchronize
from streamdream.backends.precision import has_bf16
from streamdream.dream.octaves import octave_sizes
from streamdream.errors import SettingsError
from streamdream.models.nodes import count_flop, subgraph
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

from . import LAYERS, Options, Progress, Report, conditions, parse_sizes
from .plain import Plain

if TYPE_CHECKING:
    from streamdream.backends import Backend
    from streamdream.models import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MATMUL_SIZES = {"cpu": 2048}
"""Rows of the square matrices by type of device; with larger ones the rate does not grow."""
MATMUL_SIZE_ELSEWHERE = 8192
STEPS_PER_ROUND = 3
"""Steps between two products: most steps then find their weights in the CPU's cache, as in a real run."""
DEFAULT_STEPS = 60
DEFAULT_SIZE = (240, 320)


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each backend and precision: the median time of a step, and its share of the matmul rates."""
    sizes = [(height, width) for width, height, _ in parse_sizes(options.sizes)] if options.sizes else [
        (options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1])]
    if options.backend == "auto":
        backends.choose_device(options.device)  # reports an absent device before anything is loaded
    settings = DreamSettings(layers=options.layers or LAYERS)
    model, weights = with_weights(models.get(options.model))
    objective = objectives.from_settings(settings, model)
    specs = [[backends.StepSpec(objective, *octave, GradientShape.of(settings))
              for octave in octave_sizes(*size, options.octaves, options.octave_scale)] for size in sizes]
    steps = options.frames or DEFAULT_STEPS
    backends_to_time = list(_chosen(options, model))
    rows = []
    for backend in backends_to_time:
        progress(f"{backend.name} {backend.precision}: {steps} steps")
        for octaves in specs:
            octave_rows = [measure(model, backend, spec, settings, steps) for spec in octaves]
            rows += octave_rows if len(octave_rows) == 1 else [*octave_rows, _mean(octave_rows)]
    return Report("step", conditions(device=str(backends_to_time[0].device), timed_steps=steps, weights=weights), rows)


def with_weights(model: Model) -> tuple[Model, str]:
    """Return the model and "trained"; if its weights are absent, with random ones, as fast, and "random"."""
    if model.available()[0]:
        return model, "trained"
    return replace(model, load_weights=lambda: random_weights(model.nodes())), "random"


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over octaves of all values that can be averaged."""
    means = {name: round(sum(row[name] for row in rows) / len(rows), 4) for name, value in rows[0].items()
             if isinstance(value, float)}
    return {**rows[0], **means, "size": f"mean of {len(rows)}", "matmul_gflop_per_s": None}


def measure(model: Model, backend: Backend | Plain, spec: backends.StepSpec, settings: DreamSettings, steps: int
            ) -> dict[str, Any]:
    """Return one row. The step and the products alternate, so that other load slows them equally."""
    compiled = backend.compile(spec)
    random = torch.Generator().manual_seed(0)
    picture = (torch.rand(1, 3, spec.height, spec.width, generator=random) - 0.5).to(backend.device)
    picture = picture.contiguous(memory_format=torch.channels_last)
    products = {name: Product.on(backend.device, name)
                for name in dict.fromkeys((*matmul_precisions(backend.device), backend.precision))}
    times: dict[str, list[float]] = {name: [] for name in ("step", *products)}
    for round_number in range(-1, -(-steps // STEPS_PER_ROUND)):  # round -1 is the warm-up
        measured = {name: [_seconds(product, backend.device)] for name, product in products.items()}
        measured["step"] = [_seconds(lambda: compiled(picture, settings.step_size), backend.device)
                            for _ in range(STEPS_PER_ROUND if round_number >= 0 else 2 * STEPS_PER_ROUND)]
        for name, seconds in measured.items() if round_number >= 0 else ():
            times[name] += seconds
    flop = count_flop(subgraph(model.nodes(), spec.objective.taps), spec.height, spec.width)
    rates = {name: product.flop / median(times[name]) for name, product in products.items()}
    return {"backend": backend.name, "precision": backend.precision, "model": model.name, "layers": settings.layers,
            "size": f"{spec.width}x{spec.height}", **_speed(times["step"], flop, rates, backend.precision)}


def matmul_precisions(device: torch.device) -> tuple[str, ...]:
    """Return the precisions of the products to time; without bf16 instructions, one in bf16 would take minutes."""
    return ("fp32", "bf16") if device.type != "cpu" or has_bf16() else ("fp32",)


def _speed(seconds: list[float], flop: int, rates: dict[str, float], precision: str) -> dict[str, Any]:
    """Return the columns about speed. ``matmul_share`` is the share of the highest matmul rate of all precisions."""
    ordered, p50 = sorted(seconds), median(seconds)
    return {
        "ms_p50": round(1e3 * p50, 3), "ms_p95": round(1e3 * ordered[int(0.95 * (len(ordered) - 1))], 3),
        "gflop": round(flop / 1e9, 3), "gflop_per_s": round(flop / p50 / 1e9, 1),
        "matmul_share": round(flop / p50 / max(rates.values()), 4),
        "matmul_share_fp32": round(flop / p50 / rates["fp32"], 4),
        "matmul_share_own": round(flop / p50 / rates[precision], 4),
        "matmul_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
    }


@dataclass(frozen=True)
class Product:
    """A product of two square matrices, for timing."""

    left: torch.Tensor
    right: torch.Tensor

    @classmethod
    def on(cls, device: torch.device, precision: str) -> Product:
        size = MATMUL_SIZES.get(device.type, MATMUL_SIZE_ELSEWHERE)
        random = torch.Generator().manual_seed(0)
        left, right = (torch.rand(size, size, generator=random).to(device, DTYPES[precision]) for _ in range(2))
        return cls(left, right)

    @property
    def flop(self) -> int:
        rows = self.left.shape[0]
        return 2 * rows**3

    def __call__(self) -> torch.Tensor:
        return self.left @ self.right


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started_at = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started_at


def _chosen(options: Options, model: Model) -> Iterator[Backend | Plain]:
    """Yield every backend that runs here, or the requested one, each in its fastest precision and in fp32; if all are
    compared, then plain autograd.
    """
    names = [options.backend] if options.backend != "auto" else [
        name for name in backends.BACKENDS if name != "auto" and backends.available(name)[0]]
    for name in names:
        try:
            backend = backends.create(name, model, options.device, options.precision)
        except SettingsError:
            if options.backend != "auto":
                raise
            continue  # it does not support this device
        yield backend
        if options.precision == "auto" and backend.precision != "fp32":
            yield backends.create(name, model, options.device, "fp32")
    if options.precision == options.backend == "auto":
        yield Plain(model, backends.choose_device(options.device))
