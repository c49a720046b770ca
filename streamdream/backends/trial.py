"""Eager against an engine: which engine is tried on a device, and which of the two is faster."""
from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import available, create, synchronize
from streamdream.backends.engine import run_engine
from streamdream.backends.engine_cache import Timing
from streamdream.errors import StreamdreamError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step
    from streamdream.backends.cached_engine import CachedEngineBackend
    from streamdream.backends.eager import Eager
    from streamdream.backends.engine import Engine, EngineRequest

CANDIDATES = {"cpu": ("openvino", "onnx"), "cuda": ("tensorrt",), "xpu": ("openvino",), "mps": ("onnx",)}
"""By type of device, the likeliest first; the first that is installed is tried. PyTorch's compiler is not among them:
it takes half a minute of this process, which a live picture would notice, and a GPU gains little by it.
"""
TRIAL_STEPS = 5
"""Timed steps of each, after one that is not."""
MAX_TIME_RATIO = 0.97
"""An engine is used if it takes less than this fraction of eager's time."""
MIN_CLEAR_RATIO = 1.1
"""Of the two times: a result closer than this is not stored, and the next run times again."""


def find_engines(eager: Eager, device: str) -> tuple[CachedEngineBackend | None, str]:
    """The backend to try against eager, or None with the reason. ``device`` is as in ``--device``."""
    reason = "eager is all there is for this device"
    for name in CANDIDATES.get(eager.device.type, ()):
        runs, reason = available(name)
        if runs:
            try:
                engines: Any = create(name, eager.model, device, eager.precision)
            except StreamdreamError as error:
                reason = str(error)
            else:
                return engines, ""
    return None, reason


class Trial:
    """Eager against an engine, for one size, objective, batch and shape of targets.

    ``state`` is "new", "not cached", or the result, "eager" or "engine". While an engine is there and nothing is
    decided, both are timed.
    """

    def __init__(self, eager: Step) -> None:
        self.eager = eager
        self.state = "new"
        self.engine: Engine | None = None
        self.timing: Timing | None = None
        self.eager_seconds = 0.0
        """Spent in ``time_eager`` so far."""
        self._times: dict[str, list[float]] = {"eager": [], "engine": []}

    def time_eager(self, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        moved, seconds = timed(lambda: self.eager(picture, step_size, targets), picture.device)
        self.eager_seconds += seconds
        return moved

    def time_alternately(self, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        """A step of the one that has fewer; ``timing`` is there after the last."""
        engine = self.engine
        assert engine is not None
        name = min(self._times, key=lambda name: len(self._times[name]))
        moved, seconds = timed(lambda: self.eager(picture, step_size, targets) if name == "eager"
                               else run_engine(engine, picture, step_size, targets), picture.device)
        self._times[name].append(seconds)
        if len(self._times["engine"]) > TRIAL_STEPS:
            self.timing = Timing(*(median(self._times[name][1:]) for name in ("eager", "engine")))
        return moved


def wins(timing: Timing) -> bool:
    """Whether the engine is faster."""
    return timing.engine_seconds < MAX_TIME_RATIO * timing.eager_seconds


def store_if_clear(engines: CachedEngineBackend, request: EngineRequest, timing: Timing) -> None:
    """Keep a timing for later runs, unless the two are so close that another time the other one may win."""
    if not 1 / MIN_CLEAR_RATIO < timing.eager_seconds / timing.engine_seconds < MIN_CLEAR_RATIO:
        engines.store_timing(request, timing)


def describe(timing: Timing, engine: str, work: str) -> str:
    """Describe whether eager or the engine of that name is used, and why. ``work`` is what took the times."""
    return (f"{engine} took {1e3 * timing.engine_seconds:.1f} ms {work} where eager took "
            f"{1e3 * timing.eager_seconds:.1f}, {timing.eager_seconds / timing.engine_seconds:.2f}x its speed: "
            f"{engine if wins(timing) else 'eager'} is used now")


def describe_failure(engine: str, error: Exception) -> str:
    """The first line of what an engine's library raised."""
    return f"{engine} failed ({(str(error) or type(error).__name__).splitlines()[0]})"


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """What ``work`` returns, and the seconds until the device has done it."""
    synchronize(device)
    begin = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - begin
