"""The common part of backends that run the graph of the step in an engine: build, verify, run."""
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
from streamdream.system.torch_threads import process_threads

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.graph import Graph

Engine = Callable[..., Tensor]
"""(picture [N, 3, H, W], step_size [1], *targets) -> picture, like the module of the graph."""

MIN_COSINE, FLOOR_COSINE, MARGIN = 0.99, 0.85, 0.01
"""Thresholds of the cosine between a step of an engine and one of eager. Correct engines reach 0.997 or more in bf16 up
to ``mixed5``. In GoogLeNet with random weights two correct ones have 0.945, and each has 0.947 to float32."""
TEST_STEP_SIZE = 0.02


@dataclass(frozen=True)
class EngineRequest:
    """Describes an engine: a step for pictures of ``shape`` [N, 3, H, W] and targets of these shapes.

    ``begun_seconds`` is the Unix time of the request.
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
        self.threads = process_threads()

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

    # --- whole frames ---

    portable_functions: ClassVar[bool] = True
    """Functions must keep to operations that ``graph.trace`` knows."""

    def step_function(self, spec: StepSpec) -> Callable[..., Tensor]:
        """Return the step as operations that may be part of a larger function; see ``compile_function``."""
        self._eager.check_size(spec)
        return graph.step_function(self.model, spec, self.graph_dtype, self.device)

    # --- how an engine is obtained ---

    def load(self, request: EngineRequest) -> LoadedEngine | None:
        """Load the engine from the cache folder; None if it is not there or the backend stores none."""
        return None

    def build(self, request: EngineRequest) -> LoadedEngine:
        """Build the engine in this thread. Raises EngineError if it fails the comparison with eager."""
        engine = self.build_engine(self.trace(request))
        self.verify(engine, request)
        return engine

    def build_out_of_process(self, request: EngineRequest) -> LoadedEngine:
        """Build as ``build`` does, but in another process if possible, so that no thread here waits for the GIL."""
        return self.build(request)

    def _load_or_build(self, request: EngineRequest) -> LoadedEngine:
        if (engine := self.load(request)) is not None:
            return engine
        # outside the main thread this is a live run, whose other threads need the GIL
        in_main_thread = threading.current_thread() is threading.main_thread()
        return self.build(request) if in_main_thread else self.build_out_of_process(request)

    def evictable(self, engine: LoadedEngine, request: EngineRequest) -> EvictableEngine:
        """Put the engine under the memory budget. Keeps the number of targets, but no tensor of them."""
        spec, counts = request.spec, [len(of_term) for of_term in request.targets]

        def reload(picture: Tensor, step_size: Tensor, *flat: Tensor) -> LoadedEngine:
            request = EngineRequest(spec, picture.shape, unflatten_targets(flat, counts) if flat else ())
            return self.load(request) or self.build_out_of_process(request)

        return EvictableEngine(engine, reload, self._eager.budget)

    @abstractmethod
    def build_engine(self, traced: Graph) -> LoadedEngine:
        """Build the engine of this graph."""

    def trace(self, request: EngineRequest) -> Graph:
        """Trace the graph of the step."""
        return graph.build(self.model, request.spec, self.graph_dtype, request.targets, self.device,
                           batch=request.shape[0])

    def verify(self, engine: Engine, request: EngineRequest) -> None:
        """Compare one step with eager. Raises EngineError if they differ by more than rounding."""
        picture = natural_noise(request.shape, self.device)
        move = run_engine(engine, picture, TEST_STEP_SIZE, request.targets) - picture
        similarity, threshold = self._cosine_and_threshold(move, picture, request)
        if not similarity >= threshold:
            raise EngineError(f"{self.name} does not compute the step right here: cosine {similarity:.3f} to eager's, "
                              f"{threshold:.3f} is the least; --backend eager does, please report this")

    def _cosine_and_threshold(self, move: Tensor, picture: Tensor, request: EngineRequest) -> tuple[float, float]:
        """Return the cosine between a move and that of eager, and the threshold for it.

        Eager runs in the same precision. If a deep network amplifies rounding too much, compare with eager in float32
        instead: the engine must be about as close to that as eager in its precision is.
        """
        def eager_move(precision: str) -> Tensor:
            eager = Eager(self.model, self.device, precision)  # a new one, whose network is freed after this
            return eager.compile(request.spec)(picture, TEST_STEP_SIZE, request.targets) - picture

        same = eager_move(self.precision)
        similarity = cosine(move, same)
        if similarity >= MIN_COSINE or self.precision == "fp32":
            return similarity, MIN_COSINE
        exact = eager_move("fp32")
        return cosine(move, exact), max(FLOOR_COSINE, min(MIN_COSINE, cosine(same, exact) - MARGIN))

    @property
    def graph_dtype(self) -> torch.dtype:
        """The floating-point type of the traced graph."""
        return DTYPES[self.precision]

    def describe_device(self) -> str:
        """Return the hardware that an engine is valid for: a processor, or a GPU with its compute capability."""
        if self.device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(self.device)
            return f"{torch.cuda.get_device_name(self.device)} cc{major}.{minor}"
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def run_engine(engine: Engine, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
    """Run one step of an engine; the arguments are those of a ``Step``."""
    with torch.no_grad():
        return engine(picture, torch.full((1,), step_size, device=picture.device), *flatten_targets(targets))


def input_shapes(picture: Tensor, targets: AllTargets) -> tuple[Any, ...]:
    """Return the shapes that an engine is fixed to, besides its ``StepSpec``: targets of a guide video may vary."""
    return picture.shape[0], *(tuple(target.shape) for target in flatten_targets(targets))


def natural_noise(shape: torch.Size, device: torch.device) -> Tensor:
    """Return deterministic noise with the spectrum of a photograph, in [-1, 1]."""
    number, channels, height, width = shape
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(shape)
    for cell in (1, 2, 4, 8, 16, 32):
        coarse = torch.randn(number, channels, max(2, height // cell), max(2, width // cell), generator=random)
        total += cell * F.interpolate(coarse, (height, width), mode="bilinear")
    noise = total / total.abs().amax((1, 2, 3), keepdim=True)
    return noise.to(device).contiguous(memory_format=torch.channels_last)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine between two moves as vectors; the minimum over the batch."""
    return float(F.cosine_similarity(a.flatten(1).float(), b.flatten(1).float(), 1).min())
