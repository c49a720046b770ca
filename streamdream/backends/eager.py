"""The reference backend: plain PyTorch and autograd, weights prepared once."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream import step as maths
from streamdream.backends import choose_device
from streamdream.errors import FieldTooSmall
from streamdream.models.network import Network

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.models import Model
    from streamdream.objectives import Objective
    from streamdream.terms import Features, Pictures

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TIMED_SIZES, TIMED_SIZE_ELSEWHERE = {"cpu": (60, 80)}, (480, 640)
"""By kind of device; a GPU is done with less before the next kernel is there."""
NETWORKS_KEPT = 8  # prepared weight sets: a layer change and back costs nothing


class Eager:
    """Runs ``step.ascend`` as it is written."""

    name = "eager"

    @staticmethod
    def available() -> tuple[bool, str]:
        return True, "PyTorch is always here"

    def __init__(self, model: Model, device: str | torch.device, precision: str) -> None:
        """``device`` as in ``--device``. Raises SettingsError for one that is not here."""
        self.model = model
        self.device = choose_device(device)
        if self.device.type == "cuda":
            _mean_what_is_said()
        self.precision, self.reason = choose_precision(self.device) if precision == "auto" else (precision, "asked for")
        self._network = lru_cache(maxsize=NETWORKS_KEPT)(self._prepare)

    def compile(self, spec: StepSpec) -> Step:
        self.check_size(spec)
        gradients, terms = self.term_gradients(spec.objective), spec.objective.terms

        def step(picture: Tensor, step_size: float | Tensor, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device)
            return maths.ascend(picture, gradients(picture, targets), terms, step_size, spec.smooth, spec.color)

        if self.device.type != "cuda":
            return step
        from streamdream.backends.replayed import in_one_call

        return in_one_call(step, self.device, spec)

    def check_size(self, spec: StepSpec) -> None:
        """Raises FieldTooSmall when the picture is too small for a tap."""
        taps = self.model.taps()
        least = max((taps[name].min_size for name in spec.objective.taps), default=1)
        if min(spec.height, spec.width) < least:
            names = ", ".join(spec.objective.taps)
            raise FieldTooSmall(f"a {spec.width}x{spec.height} picture is too small for {names}: it needs "
                                f"{least} pixels; use fewer octaves, a larger --field-height or a lower layer")

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        network, to_input = self._network(tuple(sorted(objective.taps))), self.model.to_input

        def features_of(picture: Tensor) -> Features:
            return network(to_input(picture.to(self.device)))

        return tuple(term.targets(features_of, pictures) for term, _ in objective.terms)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        """What climbs each term, at a picture [1, 3, H, W] of any size, before it is tamed."""
        network, to_input = self._network(tuple(sorted(objective.taps))), self.model.to_input
        terms = [term for term, _ in objective.terms]

        def gradients(picture: Tensor, targets: AllTargets = ()) -> list[Tensor]:
            mine = targets or ((),) * len(terms)
            found = network.gradients(to_input(picture.detach()), lambda features: [
                term.value(features, own) for term, own in zip(terms, mine, strict=True)])
            return [to_input.gradient(gradient) for gradient in found]

        return gradients

    def _prepare(self, taps: tuple[str, ...]) -> Network:
        return Network(self.model.nodes(), self.model.load_weights(), taps, self.device, DTYPES[self.precision])


def grouped(flat: Iterable[Tensor], counts: Sequence[int]) -> AllTargets:
    """Targets as a step takes them, from all in a row and how many each term has."""
    left = iter(flat)
    return tuple(tuple(next(left) for _ in range(count)) for count in counts)


def _mean_what_is_said() -> None:
    """float32 is float32: PyTorch lets cuDNN round it to 10 bits."""
    cudnn: Any = torch.backends.cudnn  # its type stub is behind
    cudnn.conv.fp32_precision = "ieee"


@lru_cache(maxsize=8)
def choose_precision(device: torch.device) -> tuple[str, str]:
    """(precision, why): half of float32 where the device has the instructions and a convolution measures faster so.

    On a GPU that is fp16, whose gradients turn less than those of bf16 (cosine 0.973 against 0.84 at one random
    network); a processor with bf16 instructions seldom has those for fp16.
    """
    half = "fp16" if device.type in ("cuda", "xpu", "mps") else "bf16"
    if half == "bf16" and not (device.type == "cpu" and has_bf16()):
        return "fp32", "no bf16 instructions here"
    seconds = _time_convolutions(device, ("fp32", half))
    ratio = seconds["fp32"] / seconds[half]
    return half if ratio > 1.1 else "fp32", f"{half} measured {ratio:.1f}x the speed of fp32 here"


def has_bf16() -> bool:
    """Whether the processor has the instructions; elsewhere bf16 is emulated, slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _time_convolutions(device: torch.device, precisions: tuple[str, ...]) -> dict[str, float]:
    """Seconds of a 3x3 convolution of 64 channels: the shortest of several in turn, as whatever else the machine does
    only adds to them.
    """
    def make(name: str, *size: int) -> Tensor:
        return torch.ones(size, device=device, dtype=DTYPES[name]).to(memory_format=torch.channels_last)

    def synchronize() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    size = TIMED_SIZES.get(device.type, TIMED_SIZE_ELSEWHERE)
    operands = {name: (make(name, 1, 64, *size), make(name, 96, 64, 3, 3)) for name in precisions}
    shortest = dict.fromkeys(precisions, float("inf"))
    with torch.no_grad():
        for _ in range(9):
            for name, (features, kernel) in operands.items():
                synchronize()
                begin = time.perf_counter()
                torch.nn.functional.conv2d(features, kernel, padding=1)
                synchronize()
                shortest[name] = min(shortest[name], time.perf_counter() - begin)
    return shortest
