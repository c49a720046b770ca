"""What all backends have in common that make an engine of the step's graph: when it is made, kept, and believed."""
from __future__ import annotations

import platform
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.backends import graph, unflatten_targets
from streamdream.backends.eager import Eager
from streamdream.backends.evictable import EvictableEngine, LoadedEngine
from streamdream.backends.precision import DTYPES
from streamdream.errors import EngineError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.graph import Graph

Engine = Callable[..., Tensor]
"""(picture [N, 3, H, W], step_size [1], *targets) -> picture, as the graph's module."""

MIN_COSINE, FLOOR_COSINE, MARGIN = 0.99, 0.85, 0.01
"""Between a step of an engine and one of eager. Sound ones were measured at 0.997 and more in bf16 up to ``mixed5``; at
GoogLeNet with random weights two sound ones are at 0.945 to each other, and both at 0.947 to float32."""


class EngineBackend(Eager):
    """Runs the graph of ``graph.build`` in an engine; what it cannot do (tiles, targets) is done as eager does it."""

    def compile(self, spec: StepSpec) -> Step:
        self.check_size(spec)
        engines: dict[Any, Engine] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            flat = [target for own in targets for target in own]
            shapes = picture.shape[0], *(tuple(target.shape) for target in flat)  # a guide video may change its size
            picture = picture.to(self.device).contiguous(memory_format=torch.channels_last)
            if shapes not in engines:
                # in a thread, somebody else is waiting for the interpreter: a picture that must move
                here = threading.current_thread() is threading.main_thread()
                engines[shapes] = (self.get_or_build(spec, picture, targets) if here
                                   else self.build_out_of_process(spec, picture, targets)[0])
            with torch.no_grad():
                return engines[shapes](picture, torch.full((1,), step_size, device=self.device), *flat)

        return step

    def get_or_build(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> Engine:
        """The engine for pictures and targets such as these, compared with eager once. Raises EngineError."""
        return self._evictable(self._build(spec, picture, targets), spec, targets)

    def _build(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> LoadedEngine:
        engine = self.build_engine(self.trace(spec, picture, targets))
        self.verify(engine, spec, picture, targets)
        return engine

    def _evictable(self, engine: LoadedEngine, spec: StepSpec, targets: AllTargets) -> EvictableEngine:
        """Keeps nothing of the targets but their number: those of the call are there when it is made again."""
        counts = [len(own) for own in targets]

        def reload(picture: Tensor, step_size: Tensor, *flat: Tensor) -> LoadedEngine:
            return self._reload(spec, picture, unflatten_targets(flat, counts) if flat else ())

        return EvictableEngine(engine, reload, self.budget)

    def _reload(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> LoadedEngine:
        """One that was evicted."""
        return self._build(spec, picture, targets)

    def load_cached(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> Engine | None:
        """The engine for such pictures and targets if it is at hand."""
        return None

    def build_out_of_process(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> tuple[Engine, float]:
        """As ``prepare``, in a thread, while others dream; and the seconds that it took from them."""
        begin = time.perf_counter()
        engine = self.get_or_build(spec, picture, targets)
        return engine, time.perf_counter() - begin

    def trace(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> Graph:
        """The step's graph for pictures and targets such as these."""
        return graph.build(self.model, spec, self.graph_dtype, targets, self.device, batch=picture.shape[0])

    def verify(self, engine: Engine, spec: StepSpec, picture: Tensor, targets: AllTargets) -> None:
        """Raises EngineError when its step is not eager's, for a picture such as this one."""
        flat = [target for own in targets for target in own]
        trial = natural_noise(picture.shape, self.device)
        with torch.no_grad():
            move = engine(trial, torch.full((1,), 0.02, device=self.device), *flat) - trial
        likeness, least = self._cosine_and_threshold(move, spec, trial, targets)
        if not likeness >= least:
            raise EngineError(f"{self.name} does not compute the step right here: cosine {likeness:.3f} to eager's, "
                              f"{least:.3f} is the least; --backend eager does, please report this")

    def _cosine_and_threshold(
        self, move: Tensor, spec: StepSpec, trial: Tensor, targets: AllTargets
    ) -> tuple[float, float]:
        """Its cosine and the least it must be: to eager in the same precision, or, where a deep network's rounding
        makes a chaos of that, to eager in float32, to which it must be about as close as the former is."""
        def eager(precision: str) -> Tensor:
            return Eager(self.model, self.device, precision).compile(spec)(trial, 0.02, targets) - trial

        same = eager(self.precision)
        likeness = cosine(move, same)
        if likeness >= MIN_COSINE or self.precision == "fp32":
            return likeness, MIN_COSINE
        exact = eager("fp32")
        return cosine(move, exact), max(FLOOR_COSINE, min(MIN_COSINE, cosine(same, exact) - MARGIN))

    @property
    def graph_dtype(self) -> torch.dtype:
        """What the graph is recorded in."""
        return DTYPES[self.precision]

    @abstractmethod
    def build_engine(self, recorded: Graph) -> LoadedEngine:
        """The engine that runs it."""

    def describe_device(self) -> str:
        """What an engine is bound to: a processor, or a GPU with its capability."""
        if self.device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(self.device)
            return f"{torch.cuda.get_device_name(self.device)} cc{major}.{minor}"
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def natural_noise(shape: torch.Size, device: torch.device) -> Tensor:
    """Noise with the spectrum of a photograph, always the same, within [-1, 1]."""
    number, channels, height, width = shape
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(shape)
    for cell in (1, 2, 4, 8, 16, 32):
        coarse = torch.randn(number, channels, max(2, height // cell), max(2, width // cell), generator=random)
        total += cell * F.interpolate(coarse, (height, width), mode="bilinear")
    found = total / total.abs().amax((1, 2, 3), keepdim=True)
    return found.to(device).contiguous(memory_format=torch.channels_last)


def cosine(a: Tensor, b: Tensor) -> float:
    """Between two moves, as vectors; the least of a batch."""
    return float(F.cosine_similarity(a.flatten(1).float(), b.flatten(1).float(), 1).min())
