"""CUDA graphs: capture the kernels of a step once, replay them with one call.

A step has hundreds of small kernels, and to launch one from Python takes longer than a fast GPU takes to run it.
PyTorch's compiler can capture, too, but ties a graph to the thread that made it; here an engine is built in one thread
and used in another.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import flatten_targets, unflatten_targets
from streamdream.system.memory import CacheEntry, budget_of, no_eviction
from streamdream.system.tensor_cache import record_uses

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec

ERRORS = "thread_local"
"""Only calls of the capturing thread can break a capture; other threads may allocate GPU memory meanwhile."""
MAX_PIXELS = 1920 * 1080
"""Larger pictures keep the GPU busy without a graph."""
WARMUP_CALLS = 2
"""Calls before the captured one, in which libraries choose kernels and create their caches."""
MAX_SHAPES = 16
"""Sets of shapes for which a function is kept as a graph."""
GRAPH_BYTES = 4_000_000
"""Estimate of the driver's memory for the kernels of one graph."""
Tensors = Tensor | tuple[Tensor, ...]
log = logging.getLogger(__name__)


def capture_step(step: Step, device: torch.device, spec: StepSpec) -> Step:
    """Return the step as a CUDA graph; unchanged for pictures above ``MAX_PIXELS``."""
    if spec.height * spec.width > MAX_PIXELS:
        return step
    captures: dict[Any, GraphedCallable] = {}

    def replayed(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
        flat = flatten_targets(targets)
        shapes = picture.shape, *(target.shape for target in flat)
        if shapes not in captures:
            counts = [len(of_term) for of_term in targets]
            captures[shapes] = GraphedCallable(
                lambda picture, size, *flat: step(picture, size, unflatten_targets(flat, counts)), device
            )
        dreamed: Tensor = captures[shapes](picture.to(device), torch.full((1,), step_size, device=device), *flat)
        return dreamed

    return replayed


def capture_function(work: Callable[..., Tensors], device: torch.device) -> Callable[..., Any]:
    """Return ``work``, a function of tensors, as CUDA graphs: one for each set of shapes of its inputs, as pictures and
    the features of guides come in many sizes.
    """
    graphed = lru_cache(maxsize=MAX_SHAPES)(lambda *shapes: GraphedCallable(work, device))

    def replayed(*inputs: Tensor) -> Any:
        return graphed(*(tensor.shape for tensor in inputs))(*inputs)

    return replayed


class GraphedCallable:
    """``work(*tensors)`` -> a tensor or a tuple of tensors, on one GPU, for constant shapes; ``work`` must not wait for
    the GPU.

    Thread-safe; each call returns new tensors. Work that cannot be captured is run as it is. After an eviction the
    next call captures again.
    """

    def __init__(self, work: Callable[..., Tensors], device: torch.device) -> None:
        self._work, self._calls = work, 0
        self._lock = threading.Lock()
        self._captured: CacheEntry[CapturedGraph] = CacheEntry(budget_of(device), attrgetter("nbytes"))
        self._uncapturable = False

    def __call__(self, *inputs: Tensor) -> Any:
        with self._lock, torch.no_grad():
            self._calls += 1
            if self._uncapturable or self._calls <= WARMUP_CALLS:
                return self._work(*inputs)
            try:
                with self._captured.use(lambda: CapturedGraph(self._work, inputs)) as captured:
                    return captured(inputs)
            except RuntimeError as error:
                if self._captured.loaded:
                    raise
                log.debug("not captured: %s", error)
                self._uncapturable = True
            return self._work(*inputs)


class CapturedGraph:
    """The kernels of one run, with the buffers of its inputs and its outputs.

    A CUDA graph has only addresses, so this keeps references to all that it reads: ``work`` has the weights.
    """

    def __init__(self, work: Callable[..., Tensors], inputs: tuple[Tensor, ...]) -> None:
        self._work, self._inputs = work, [tensor.clone() for tensor in inputs]
        self._graph: Any = torch.cuda.CUDAGraph()
        pool = CapturePool.on(inputs[0].device)
        self._replaying = pool.replaying
        with record_uses() as self._constants:
            work(*self._inputs)  # makes its constants: one made during the capture would have no values until a replay
            with pool.capturing(), no_eviction():
                self._graph.capture_begin(pool=pool.pool, capture_error_mode=ERRORS)
                try:
                    self._output = work(*self._inputs)
                finally:
                    self._graph.capture_end()

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs and outputs, and an estimate for the kernels, whose size CUDA does not report.

        Intermediate values are in memory that all graphs share; see ``CapturePool``.
        """
        outputs = self._output if isinstance(self._output, tuple) else (self._output,)
        return sum(tensor.nbytes for tensor in (*self._inputs, *outputs)) + GRAPH_BYTES

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensors:
        torch._foreach_copy_(self._inputs, list(inputs))
        with self._replaying:
            self._graph.replay()
            return clone_all(self._output) if isinstance(self._output, tuple) else self._output.clone()


def clone_all(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Clone tensors, those of numbers by one call: each call releases the GIL, and where many sessions want that, to
    get it back takes longer than the work (docs/notebook/2026-11-28-whole-frame-on-a-device.md).
    """
    numbers = [tensor for tensor in tensors if tensor.is_floating_point()]
    cloned = iter(torch._foreach_mul(numbers, 1.0) if numbers else ())
    return tuple(next(cloned) if tensor.is_floating_point() else tensor.clone() for tensor in tensors)


class CapturePool:
    """The stream of a GPU on which graphs are captured one at a time, and the memory for their intermediate values.

    All graphs share that memory: the intermediate values of one may be where the outputs of another are, so within
    ``replaying`` one is replayed and its outputs are copied.
    """

    def __init__(self, device: torch.device) -> None:
        stream: Any = torch.cuda.Stream
        self._device, self._stream, self._lock = device, stream(device), threading.Lock()
        self.replaying = threading.Lock()
        self._first: Any = torch.cuda.CUDAGraph()  # keeps the pool alive, which lives as long as any of its graphs
        self.pool = torch.cuda.graph_pool_handle()
        with self.capturing():
            self._first.capture_begin(pool=self.pool, capture_error_mode=ERRORS)
            self._anchor = torch.zeros(1, device=device)
            self._first.capture_end()

    @classmethod
    @cache
    def on(cls, device: torch.device) -> CapturePool:
        return cls(device)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        with self._lock, torch.cuda.device(self._device):
            torch.cuda.synchronize(self._device)
            with torch.cuda.stream(self._stream):
                yield
