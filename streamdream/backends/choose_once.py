"""Choose eager or an engine once, before a render starts; ``auto.py`` switches during the run.

``Auto`` changes from eager to an engine at a moment that depends on the clock, and the two round differently. A render
that must be resumed with the same bits chooses here, and goes on with the backend by its name.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from streamdream.backends import create
from streamdream.backends.engine import TEST_STEP_SIZE, EngineRequest, natural_noise
from streamdream.backends.engine_cache import Timing
from streamdream.backends.trial import Trial, describe, describe_failure, find_engines, store_if_clear, wins

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.cached_engine import CachedEngineBackend
    from streamdream.backends.eager import Eager
    from streamdream.models import Model

log = logging.getLogger(__name__)


class BackendChoice(NamedTuple):
    """A name in BACKENDS other than ``auto``, one in PRECISIONS other than ``auto``, and why, for people."""

    backend: str
    precision: str
    reason: str
    would_build: bool = False
    """Whether ``may_build`` would have built engines, and timed both."""


class StepRecorder:
    """A backend whose steps change nothing: it records what engines they would need, in ``requests``."""

    name, reason = "recorder", ""

    def __init__(self, eager: Eager) -> None:
        self._eager = eager
        self.model, self.device, self.precision = eager.model, eager.device, eager.precision
        self.requests: list[EngineRequest] = []

    def compile(self, spec: StepSpec) -> Step:
        self._eager.check_size(spec)

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            self.requests.append(EngineRequest(spec, picture.shape, targets))
            return picture

        return step

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        return self._eager.targets(objective, pictures)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        """Of tiles, which no engine computes: zeros."""
        def gradients(picture: Tensor, targets: AllTargets = ()) -> list[Tensor]:
            return [torch.zeros_like(picture) for _ in objective.terms]

        return gradients


def resolve_named(name: str, model: Model, device: str, precision: str) -> BackendChoice:
    """The choice where the backend is asked for by name. Raises what ``create`` raises."""
    backend = create(name, model, device, precision)
    return BackendChoice(name, backend.precision, f"{name} was asked for; {backend.reason}")


def choose(eager: Eager, device: str, requests: Sequence[EngineRequest], may_build: bool) -> BackendChoice:
    """The faster of eager and an engine for steps that are ``requests``, one of each; eager where an engine fails.

    Stored timings decide, and so the same cache gives the same choice. Where one is missing, ``may_build`` lets this
    wait for the engine, which takes some seconds a request, and time both; else it is eager. ``device`` is as in
    ``--device``.
    """
    engines, reason = find_engines(eager, device)
    name, would_build = "eager", False
    if engines is None:
        reason = f"eager, as {reason}"
    elif not requests:
        reason = "eager, as all steps are computed in tiles"
    else:
        try:
            timing = _total_timing(eager, engines, requests, may_build)
        except Exception as error:  # whatever an engine's library raises
            reason = f"eager, as {describe_failure(engines.name, error)}"
            log.warning("%s", reason)
        else:
            if timing is None:
                would_build = True
                reason = f"eager, as not all steps of this run are timed with {engines.name} yet"
            else:
                sizes = ", ".join(f"{request.spec.width}x{request.spec.height}" for request in requests)
                name = engines.name if wins(timing) else "eager"
                reason = describe(timing, engines.name, f"a step of each octave ({sizes})")
                log.info("%s", reason)
    return BackendChoice(name, eager.precision, f"{reason}; {eager.reason}", would_build)


def _total_timing(eager: Eager, engines: CachedEngineBackend, requests: Sequence[EngineRequest], may_build: bool
                  ) -> Timing | None:
    """Of all requests together; None where one has no stored timing and may not be timed."""
    timings = [engines.load_timing(request) for request in requests]
    if None in timings and not may_build:
        return None
    # one after the other: a build would disturb a timing beside it
    known = [timing or _measure(eager, engines, request) for timing, request in zip(timings, requests, strict=True)]
    return Timing(sum(timing.eager_seconds for timing in known), sum(timing.engine_seconds for timing in known))


def _measure(eager: Eager, engines: CachedEngineBackend, request: EngineRequest) -> Timing:
    """Load or build the engine, time both in turn, and store a clear result."""
    trial = Trial(eager.compile(request.spec))
    trial.engine = engines.evictable(engines.load(request) or engines.build_out_of_process(request), request)
    picture = natural_noise(request.shape, eager.device)
    while trial.timing is None:
        trial.time_alternately(picture, TEST_STEP_SIZE, request.targets)
    store_if_clear(engines, request, trial.timing)
    return trial.timing
