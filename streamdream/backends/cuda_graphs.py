"""A GPU's work captured once and replayed by one call: a CUDA graph.

A step is hundreds of small kernels, and launching each from Python takes longer than a fast GPU takes to run it. The
capture is made here, not by PyTorch's compiler: its own belongs to the thread that made it, and a dream is made in
one thread and its engine in another.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import flatten_targets, unflatten_targets
from streamdream.models.tensor_cache import record_uses
from streamdream.system.memory import Slot, budget_of, no_eviction

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec

ERRORS = "thread_local"
"""Whose calls must not disturb a capture: other threads may ask the GPU for memory meanwhile."""
MAX_PIXELS = 1920 * 1080
"""Pixels."""
WARMUP_CALLS = 2
"""Calls before the one that is captured: libraries choose their kernels in them, and make what they make once."""
GRAPH_BYTES = 4_000_000
"""An estimate: the kernels of one graph in the driver's memory."""
log = logging.getLogger(__name__)


def capture_step(step: Step, device: torch.device, spec: StepSpec) -> Step:
    """The same step, replayed as a whole; a picture so large that the GPU is never waiting is not worth the memory."""
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
        return captures[shapes](picture.to(device), torch.full((1,), step_size, device=device), *flat)

    return replayed


class GraphedCallable:
    """``work(*tensors) -> tensor`` on one GPU, always of the same shapes, with nothing in it that waits for the GPU.

    Each call returns a new tensor, whichever thread it comes from. What cannot be captured is run as it is. A graph
    that was evicted is captured again by the next call.
    """

    def __init__(self, work: Callable[..., Tensor], device: torch.device) -> None:
        self._work, self._calls = work, 0
        self._lock = threading.Lock()
        self._captured: Slot[CapturedGraph] = Slot(budget_of(device), attrgetter("nbytes"))
        self._uncapturable = False

    def __call__(self, *inputs: Tensor) -> Tensor:
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
    """The kernels of one run, its inputs' places and its output's. It has only the addresses of what it reads, so it
    keeps that: ``work`` holds the weights.
    """

    def __init__(self, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self._work, self._inputs = work, [tensor.clone() for tensor in inputs]
        self._graph: Any = torch.cuda.CUDAGraph()
        pool = CapturePool.on(inputs[0].device)
        with pool.capturing(), no_eviction(), record_uses() as self._constants:
            self._graph.capture_begin(pool=pool.pool, capture_error_mode=ERRORS)
            try:
                self._output = work(*self._inputs)
            finally:
                self._graph.capture_end()

    @property
    def nbytes(self) -> int:
        """Of its inputs and its output, and an estimate for its kernels, which CUDA does not tell; what lies between is
        in memory that all graphs share, see ``CapturePool``.
        """
        return sum(tensor.nbytes for tensor in (*self._inputs, self._output)) + GRAPH_BYTES

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for buffer, tensor in zip(self._inputs, inputs, strict=True):
            buffer.copy_(tensor)
        self._graph.replay()
        return self._output.clone()


class CapturePool:
    """Where a GPU's graphs are captured, one after the other: one stream, and memory that all of them share for what
    lies between their input and output, as no two are replayed at the same time.
    """

    def __init__(self, device: torch.device) -> None:
        stream: Any = torch.cuda.Stream
        self._device, self._stream, self._lock = device, stream(device), threading.Lock()
        self._first: Any = torch.cuda.CUDAGraph()  # the memory is there as long as one graph is: this one
        self.pool = torch.cuda.graph_pool_handle()
        with self.capturing():
            self._first.capture_begin(pool=self.pool, capture_error_mode=ERRORS)
            self._held = torch.zeros(1, device=device)
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
