"""What backends have in common that run the step's graph in an engine: when one is built, and whether it is right."""
from __future__ import annotations

import platform
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.backends import flatten_targets, graph, unflatten_targets
from streamdream.backends.eager import Eager
from streamdream.backends.evictable import EvictableEngine, LoadedEngine
from streamdream.backends.precision import DTYPES
from streamdream.errors import EngineError

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.graph import Graph

Engine = Callable[..., Tensor]
"""(picture [N, 3, H, W], step_size [1], *targets) -> picture, as the graph's module."""

MIN_COSINE, FLOOR_COSINE, MARGIN = 0.99, 0.85, 0.01
"""Between a step of an engine and one of eager. Right ones were measured at 0.997 and more in bf16 up to ``mixed5``; at
GoogLeNet with random weights two right ones are at 0.945 to each other, and both at 0.947 to float32."""
TEST_STEP_SIZE = 0.02


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is for: a step of pictures of ``shape`` [N, 3, H, W], with targets like these.

    ``begun_seconds`` is the Unix time from which whoever asks waits for it.
    """

    spec: StepSpec
    shape: torch.Size
    targets: AllTargets = ()
    begun_seconds: float = field(default_factory=time.time, compare=False)


class EngineBackend(ABC):
    """Runs the graph of ``graph.build`` in an engine; tiles, targets and checks are done by an eager backend."""

    name: ClassVar[str]

    def __init__(self, eager: Eager) -> None:
        self._eager = eager
        self.model, self.device = eager.model, eager.device
        self.precision, self.reason = eager.precision, eager.reason

    # --- the contract of a backend ---

    def compile(self, spec: StepSpec) -> Step:
        self._eager.check_size(spec)
        engines: dict[Any, Engine] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device).contiguous(memory_format=torch.channels_last)
            key = input_shapes(picture, targets)
            if key not in engines:
                request = EngineRequest(spec, picture.shape, targets)
                engines[key] = self.evictable(self._load_or_build(request), request)
            return run_engine(engines[key], picture, step_size, targets)

        return step

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        return self._eager.targets(objective, pictures)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        return self._eager.term_gradients(objective)

    # --- how an engine is obtained ---

    def load(self, request: EngineRequest) -> LoadedEngine | None:
        """The engine from the cache folder; None where it is not there or the backend keeps none."""
        return None

    def build(self, request: EngineRequest) -> LoadedEngine:
        """Build the engine in this thread. Raises EngineError when it does not compute the step right."""
        engine = self.build_engine(self.trace(request))
        self.verify(engine, request)
        return engine

    def build_out_of_process(self, request: EngineRequest) -> LoadedEngine:
        """As ``build``, by another process where that is possible, so that other threads of this one go on."""
        return self.build(request)

    def _load_or_build(self, request: EngineRequest) -> LoadedEngine:
        if (engine := self.load(request)) is not None:
            return engine
        # in another thread than the main one somebody waits for the GIL: a live picture
        in_main_thread = threading.current_thread() is threading.main_thread()
        return self.build(request) if in_main_thread else self.build_out_of_process(request)

    def evictable(self, engine: LoadedEngine, request: EngineRequest) -> EvictableEngine:
        """The engine in the memory budget. Of the request's targets only the number is held, no tensor."""
        spec, counts = request.spec, [len(of_term) for of_term in request.targets]

        def reload(picture: Tensor, step_size: Tensor, *flat: Tensor) -> LoadedEngine:
            again = EngineRequest(spec, picture.shape, unflatten_targets(flat, counts) if flat else ())
            return self.load(again) or self.build_out_of_process(again)

        return EvictableEngine(engine, reload, self._eager.budget)

    @abstractmethod
    def build_engine(self, traced: Graph) -> LoadedEngine:
        """The engine that runs this graph."""

    def trace(self, request: EngineRequest) -> Graph:
        """The step's graph."""
        return graph.build(self.model, request.spec, self.graph_dtype, request.targets, self.device,
                           batch=request.shape[0])

    def verify(self, engine: Engine, request: EngineRequest) -> None:
        """Compare one step with eager's. Raises EngineError when they differ by more than rounding."""
        picture = natural_noise(request.shape, self.device)
        move = run_engine(engine, picture, TEST_STEP_SIZE, request.targets) - picture
        similarity, threshold = self._cosine_and_threshold(move, picture, request)
        if not similarity >= threshold:
            raise EngineError(f"{self.name} does not compute the step right here: cosine {similarity:.3f} to eager's, "
                              f"{threshold:.3f} is the least; --backend eager does, please report this")

    def _cosine_and_threshold(self, move: Tensor, picture: Tensor, request: EngineRequest) -> tuple[float, float]:
        """The cosine of a move and the least that is accepted: to eager in the same precision, or, where a deep
        network amplifies rounding too much, to eager in float32, to which it must be about as close as the former.
        """
        def eager_move(precision: str) -> Tensor:
            eager = Eager(self.model, self.device, precision)  # a new one: its network is dropped at once
            return eager.compile(request.spec)(picture, TEST_STEP_SIZE, request.targets) - picture

        same = eager_move(self.precision)
        similarity = cosine(move, same)
        if similarity >= MIN_COSINE or self.precision == "fp32":
            return similarity, MIN_COSINE
        exact = eager_move("fp32")
        return cosine(move, exact), max(FLOOR_COSINE, min(MIN_COSINE, cosine(same, exact) - MARGIN))

    @property
    def graph_dtype(self) -> torch.dtype:
        """What the graph is traced in."""
        return DTYPES[self.precision]

    def describe_device(self) -> str:
        """What an engine is bound to: a processor, or a GPU with its capability."""
        if self.device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(self.device)
            return f"{torch.cuda.get_device_name(self.device)} cc{major}.{minor}"
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def run_engine(engine: Engine, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
    """One step of an engine; the arguments are those of a ``Step``."""
    with torch.no_grad():
        return engine(picture, torch.full((1,), step_size, device=picture.device), *flatten_targets(targets))


def input_shapes(picture: Tensor, targets: AllTargets) -> tuple[Any, ...]:
    """What one engine is limited to, besides its ``StepSpec``: a guide video may change its size."""
    return picture.shape[0], *(tuple(target.shape) for target in flatten_targets(targets))


def natural_noise(shape: torch.Size, device: torch.device) -> Tensor:
    """Noise with the spectrum of a photograph, always the same, within [-1, 1]."""
    number, channels, height, width = shape
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(shape)
    for cell in (1, 2, 4, 8, 16, 32):
        coarse = torch.randn(number, channels, max(2, height // cell), max(2, width // cell), generator=random)
        total += cell * F.interpolate(coarse, (height, width), mode="bilinear")
    noise = total / total.abs().amax((1, 2, 3), keepdim=True)
    return noise.to(device).contiguous(memory_format=torch.channels_last)


def cosine(a: Tensor, b: Tensor) -> float:
    """Between two moves, as vectors; the least of a batch."""
    return float(F.cosine_similarity(a.flatten(1).float(), b.flatten(1).float(), 1).min())
