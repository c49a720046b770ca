"""The backend ``auto``: start with eager, and switch to an engine during the run, where that is faster.

For each size and objective: load an engine that an earlier run stored; or build one in another process after eager has
run for BUILD_AFTER_SECONDS, so that short runs do not pay for it. Then time both on real steps, alternately, and use
the faster one. A clear result is stored and reused by later runs. Both compute the same, so the switch is invisible.
A render of a file does not switch: ``choose_once.py``.
"""
from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from torch import Tensor

from streamdream.backends import available, build_process, choose_device
from streamdream.backends.eager import Eager
from streamdream.backends.engine import EngineRequest, input_shapes, run_engine
from streamdream.backends.trial import CANDIDATES, Trial, describe, describe_failure, find_engines, store_if_clear, wins

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.engine_cache import Timing
    from streamdream.models import Model

BUILD_AFTER_SECONDS = 8.0
"""Run time of eager before a build starts; about the time of a build: 5 to 9 s for OpenVINO on two cores."""
TRIAL_TIMEOUT_SECONDS = 10.0
"""How long the next build waits for the timing of the last engine, which it would disturb."""
JOIN_TIMEOUT_SECONDS = 10.0
"""How long the process waits at its end for a thread that loads an engine."""
_threads: list[threading.Thread] = []
_ending = threading.Event()
log = logging.getLogger(__name__)


class Auto:
    """Eager, until an engine proves faster for a size and an objective; ``name`` is the one in use."""

    @staticmethod
    def available() -> tuple[bool, str]:
        kind = choose_device("auto").type
        engines = [name for name in CANDIDATES.get(kind, ()) if available(name)[0]]
        return True, (f"eager at once on {kind}, then the faster of it and {engines[0]}" if engines
                      else f"eager on {kind}")

    def __init__(self, model: Model, device: str, precision: str) -> None:
        self._eager = Eager(model, device, precision)
        self.model, self.device, self.precision = model, self._eager.device, self._eager.precision
        self.name = "eager"
        self._engines, why_not = find_engines(self._eager, device)
        self._set_reason(f"eager, as {why_not}" if self._engines is None else
                         f"eager; {self._engines.name} is tried when the run is long enough")
        self._winners: WeakSet[Trial] = WeakSet()
        self._background = threading.Lock()
        """Locked while an engine is loaded or built: one at a time."""

    def _set_reason(self, choice: str) -> None:
        self.reason = f"{choice}; {self._eager.reason}"

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        return self._eager.targets(objective, pictures)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        return self._eager.term_gradients(objective)

    def step_function(self, spec: StepSpec) -> Callable[..., Tensor]:
        """As of eager, which runs whole frames; see ``Eager.step_function``."""
        return self._eager.step_function(spec)

    def compile_function(self, work: Callable[..., Any], objectives: Sequence[Objective] = ()) -> Callable[..., Any]:
        return self._eager.compile_function(work, objectives)

    def compile(self, spec: StepSpec) -> Step:
        eager = self._eager.compile(spec)
        if self._engines is None:
            return eager
        trials: dict[Any, Trial] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device)
            key = input_shapes(picture, targets)
            if key not in trials:
                trials[key] = Trial(eager)
            return self._run_step(trials[key], spec, picture, step_size, targets)

        return step

    def _run_step(self, trial: Trial, spec: StepSpec, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        if trial.state == "eager":
            return trial.eager(picture, step_size, targets)
        if trial.engine is None:
            wanted = trial.state == "new" or trial.eager_seconds > BUILD_AFTER_SECONDS
            if wanted and self._background.acquire(blocking=False):
                self._start(trial, EngineRequest(spec, picture.shape, targets))
            return trial.time_eager(picture, step_size, targets)
        try:
            if trial.state == "engine":
                return run_engine(trial.engine, picture, step_size, targets)
            dreamed = trial.time_alternately(picture, step_size, targets)
        except Exception as error:  # such as an evicted engine that cannot be loaded again: continue with eager
            self._reject_engine(trial, spec, error)
            return trial.eager(picture, step_size, targets)
        if trial.timing is not None:
            self._decide(trial, spec, trial.timing)
            assert self._engines is not None
            store_if_clear(self._engines, EngineRequest(spec, picture.shape, targets), trial.timing)
        return dreamed

    # --- background thread ---

    def _start(self, trial: Trial, request: EngineRequest) -> None:
        """Load or build an engine in a thread, which releases ``_background``. Errors there leave eager in use."""
        def work() -> None:
            try:
                self._obtain_engine(trial, request)
            except Exception as error:
                if not _ending.is_set():
                    self._reject_engine(trial, request.spec, error)
            finally:
                self._background.release()

        _start_thread(work)

    def _obtain_engine(self, trial: Trial, request: EngineRequest) -> None:
        engines = self._engines
        assert engines is not None
        if trial.state == "new":
            timing = engines.load_timing(request)
            if timing is not None and not wins(timing):
                self._decide(trial, request.spec, timing)
                return
            loaded = engines.load(request)
            if loaded is None:
                trial.state = "not cached"
                return
            trial.engine = engines.evictable(loaded, request)
            if timing is not None:
                self._decide(trial, request.spec, timing)
        elif trial.state == "not cached" and not _ending.is_set():
            trial.engine = engines.evictable(engines.build_out_of_process(request), request)
            deadline = time.monotonic() + TRIAL_TIMEOUT_SECONDS
            while trial.engine is not None and trial.timing is None and time.monotonic() < deadline:
                if _ending.wait(0.05):
                    return

    # --- results ---

    def _decide(self, trial: Trial, spec: StepSpec, timing: Timing) -> None:
        """Choose eager or the engine by their times."""
        assert self._engines is not None
        self._set_reason(describe(timing, self._engines.name, f"a step of {spec.width}x{spec.height}"))
        if wins(timing):
            trial.state, self.name = "engine", self._engines.name
            self._winners.add(trial)
        else:
            trial.state, trial.engine = "eager", None
        log.info("%s", self.reason)

    def _reject_engine(self, trial: Trial, spec: StepSpec, error: Exception) -> None:
        """Use eager for this size from now on; other sizes keep their engines."""
        assert self._engines is not None
        self._winners.discard(trial)
        trial.state, trial.engine = "eager", None
        self.name = self._engines.name if self._winners else "eager"
        self._set_reason(f"eager at {spec.width}x{spec.height}, as {describe_failure(self._engines.name, error)}")
        log.warning("%s", self.reason)


def _start_thread(work: Callable[[], None]) -> None:
    """Start a daemon thread that the process joins at exit: a thread that returns from an engine's library after the
    interpreter has ended would abort the process.
    """
    atexit.unregister(_stop_threads)
    atexit.register(_stop_threads)
    _threads[:] = [thread for thread in _threads if thread.is_alive()]
    _threads.append(threading.Thread(target=work, daemon=True, name="streamdream-engine"))
    _threads[-1].start()


def _stop_threads() -> None:
    _ending.set()
    build_process.cancel()
    for thread in _threads:
        thread.join(JOIN_TIMEOUT_SECONDS)
