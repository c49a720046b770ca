"""Dreams at once, and finds out meanwhile what is fastest here.

Eager begins. An engine that an earlier run left is taken as soon as it is loaded; a new one is built behind it, in a
process of its own, once eager has taken about as long as that will take: a short run never pays for one, a long one at
most twice (the ski rental rule). What engines have saved so far pays for further ones: a live field that grows does not
begin all over again. Then both are timed in turn, each turn a real step, and the faster goes on. They compute the same,
so nothing shows when they change.
"""
from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor

from streamdream.backends import available, build_process, choose_device, create
from streamdream.backends.eager import Eager
from streamdream.errors import StreamdreamError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.backends.engine import Engine, EngineBackend
    from streamdream.models import Model

    Wanted = tuple["Trial", StepSpec, Tensor, AllTargets]

CANDIDATES = {"cpu": ("openvino",), "cuda": ("tensorrt",), "xpu": ("openvino",)}
"""By kind of device, the likeliest first; the first that is installed is tried. PyTorch's compiler is not among them:
it takes half a minute of this process, which a live picture would notice, and a GPU gains little by it.
"""
BUILD_SECONDS = 8.0
"""Taken for the time that a first engine takes, until one was built. Two cores: 5 to 9 s for OpenVINO."""
TRIAL_STEPS = 5
"""Timed steps of each, after one that is not."""
MAX_TIME_RATIO = 0.97
"""An engine is kept when it takes less than this of eager's time."""
MAX_FAILURES = 3
"""Engines that fail one after the other until no more are built; those that run go on."""
JOIN_TIMEOUT_SECONDS = 10.0
"""How long the end of the process waits for a thread that is loading an engine."""
_threads: list[threading.Thread] = []
_ending = threading.Event()
log = logging.getLogger(__name__)


class Auto(Eager):
    """Eager, until something else proves faster for a size and an objective; ``name`` is what runs now."""

    name = "eager"

    @staticmethod
    def available() -> tuple[bool, str]:
        kind = choose_device("auto").type
        named = [name for name in CANDIDATES.get(kind, ()) if available(name)[0]]
        return True, f"eager at once on {kind}, then the faster of it and {named[0]}" if named else f"eager on {kind}"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self._precision_reason = self.reason
        self._engines, found = self._find_engines(device)
        self._log_choice(found)
        self._build_seconds = BUILD_SECONDS
        self._failures = 0
        self._winners: WeakSet[Trial] = WeakSet()
        self._saved_seconds = 0.0
        self._pending: list[Wanted] = []
        self._building = threading.Lock()

    def _find_engines(self, device: str) -> tuple[EngineBackend | None, str]:
        """The backend to try, and what to say of it."""
        reason = "eager is all there is for this device"
        for name in CANDIDATES.get(self.device.type, ()):
            runs, reason = available(name)
            if runs:
                try:
                    found: Any = create(name, self.model, device, self.precision)
                except StreamdreamError as error:
                    reason = str(error)
                else:
                    return found, f"eager; {name} is tried when the run is long enough"
        return None, f"eager, as {reason}"

    def _log_choice(self, choice: str) -> None:
        self.reason = f"{choice}; {self._precision_reason}"

    def compile(self, spec: StepSpec) -> Step:
        eager = super().compile(spec)
        contests: dict[Any, Trial] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            if self._engines is None:
                return eager(picture, step_size, targets)
            picture = picture.to(self.device)
            key = picture.shape[0], *(tuple(target.shape) for own in targets for target in own)
            if key not in contests:
                contests[key] = Trial()
            return self._run_step(contests[key], spec, eager, picture, step_size, targets)

        return step

    def _run_step(self, contest: Trial, spec: StepSpec, eager: Step, picture: Tensor, step_size: float,
                   targets: AllTargets) -> Tensor:
        if contest.winner == "eager":
            return eager(picture, step_size, targets)
        if contest.engine is None:
            self._request_engine(contest, spec, picture, targets)
            _synchronize(picture.device)
            begin = time.perf_counter()
            found = eager(picture, step_size, targets)
            _synchronize(picture.device)
            contest.spent_seconds += time.perf_counter() - begin
            return found
        unmeasured = contest.winner is None and self._building.locked()  # no time for it: another one is being built
        if unmeasured and not self._winners:
            return eager(picture, step_size, targets)
        try:
            if unmeasured or contest.winner is not None:
                self._saved_seconds += contest.saves_seconds
                return contest.run(picture, step_size, targets)
            found = contest.time_one(eager, picture, step_size, targets)
            if contest.winner is not None:
                self._record_result(contest, spec)
            return found
        except Exception as error:  # one that rested is not to be had again, perhaps: a show does not end by it
            self._reject_engine(contest, spec, error)
            return eager(picture, step_size, targets)

    def _request_engine(self, contest: Trial, spec: StepSpec, picture: Tensor, targets: AllTargets) -> None:
        """One that was kept is taken at once; a new one is built when its time has come."""
        if self._failures >= MAX_FAILURES:
            return
        if not contest.cache_checked:
            contest.cache_checked = True
        elif contest.cache_miss and contest.spent_seconds + self._saved_seconds > self._build_seconds:
            contest.cache_miss, contest.build_started = False, True
            self._saved_seconds = max(0.0, self._saved_seconds - self._build_seconds)
        else:
            return
        self._pending.append((contest, spec, picture, targets))
        if not self._building.locked():  # else whoever builds finds it
            _start_thread(self._build_pending)

    def _build_pending(self) -> None:
        """In the background, one after the other, the newest first: it is the size of now."""
        while self._pending and not _ending.is_set() and self._building.acquire(False):
            try:
                if self._pending:  # nobody else took it meanwhile
                    self._load_or_build(*self._pending.pop())
            finally:
                self._building.release()

    def _load_or_build(self, contest: Trial, spec: StepSpec, picture: Tensor, targets: AllTargets) -> None:
        """Whatever goes wrong here, eager goes on."""
        assert self._engines is not None
        try:
            if contest.build_started:
                contest.engine, self._build_seconds = self._engines.build_out_of_process(spec, picture, targets)
            else:
                contest.engine = self._engines.load_cached(spec, picture, targets)
                contest.cache_miss = contest.engine is None
        except Exception as error:
            if not _ending.is_set():
                self._reject_engine(contest, spec, error)

    def _reject_engine(self, contest: Trial, spec: StepSpec, error: Exception) -> None:
        """On this engine: eager goes on for its size."""
        assert self._engines is not None
        self._failures += 1
        self._winners.discard(contest)
        contest.winner, contest.engine = "eager", None
        self._log_choice(f"eager at {spec.width}x{spec.height}, as {self._engines.name} failed "
                  f"({(str(error) or type(error).__name__).splitlines()[0]})")
        self.name = self._engines.name if self._winners else "eager"
        log.warning("%s", self.reason)

    def _record_result(self, contest: Trial, spec: StepSpec) -> None:
        assert self._engines is not None and contest.winner is not None
        engine, ratio = self._engines.name, contest.eager_seconds / contest.engine_seconds
        self._log_choice(
            f"{engine} took {1e3 * contest.engine_seconds:.1f} ms a step of {spec.width}x{spec.height} where "
            f"eager took {1e3 * contest.eager_seconds:.1f}, {ratio:.2f}x its speed: "
            f"{engine if contest.winner == 'engine' else 'eager'} goes on"
        )
        self._failures = 0
        if contest.winner == "engine":
            self.name = engine
            self._winners.add(contest)
        else:
            contest.engine = None
        log.info("%s", self.reason)


class Trial:
    """Eager and an engine in turn at real steps, for one size, objective and batch."""

    def __init__(self) -> None:
        self.cache_checked = self.cache_miss = self.build_started = False
        """Whether one that was kept was looked for, whether there is none, and whether a new one is, or was, built."""
        self.spent_seconds = 0.0
        self.engine: Engine | None = None
        self.winner: str | None = None
        self._times: dict[str, list[float]] = {"eager": [], "engine": []}

    @property
    def saves_seconds(self) -> float:
        """By a step, as far as is known."""
        return self.eager_seconds - self.engine_seconds if self.winner == "engine" else 0.0

    @property
    def eager_seconds(self) -> float:
        return median(self._times["eager"][1:])

    @property
    def engine_seconds(self) -> float:
        return median(self._times["engine"][1:])

    def run(self, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        assert self.engine is not None
        with torch.no_grad():
            return self.engine(picture, torch.full((1,), step_size, device=picture.device),
                               *(target for own in targets for target in own))

    def time_one(self, eager: Step, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        name = min(self._times, key=lambda name: len(self._times[name]))
        work: Callable[..., Tensor] = eager if name == "eager" else self.run
        _synchronize(picture.device)
        begin = time.perf_counter()
        found = work(picture, step_size, targets)
        _synchronize(picture.device)
        self._times[name].append(time.perf_counter() - begin)
        if len(self._times["engine"]) > TRIAL_STEPS:
            self.winner = "engine" if self.engine_seconds < MAX_TIME_RATIO * self.eager_seconds else "eager"
        return found


def _start_thread(work: Callable[..., None], *given: object) -> None:
    """In a thread. The process waits for it at its end: one that came back from an engine's library after the
    interpreter was gone would abort it.
    """
    atexit.unregister(_stop_threads)
    atexit.register(_stop_threads)
    _threads[:] = [thread for thread in _threads if thread.is_alive()]
    _threads.append(threading.Thread(target=work, args=given, daemon=True, name="streamdream-engine"))
    _threads[-1].start()


def _stop_threads() -> None:
    _ending.set()
    build_process.cancel()
    for thread in _threads:
        thread.join(JOIN_TIMEOUT_SECONDS)


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
