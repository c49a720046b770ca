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

    Wanted = tuple["Contest", StepSpec, Tensor, AllTargets]

CANDIDATES = {"cpu": ("openvino",), "cuda": ("tensorrt",), "xpu": ("openvino",)}
"""By kind of device, the likeliest first; the first that is installed is tried. PyTorch's compiler is not among them:
it takes half a minute of this process, which a live picture would notice, and a GPU gains little by it.
"""
BUILD_SECONDS = 8.0
"""Taken for the time that a first engine takes, until one was built. Two cores: 5 to 9 s for OpenVINO."""
TURNS = 5
"""Timed steps of each, after one that is not."""
WORTH = 0.97
"""An engine is kept when it takes less than this of eager's time."""
FAILURES_BORNE = 3
"""Engines that fail one after the other until no more are built; those that run go on."""
PATIENCE_SECONDS = 10.0
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
        self._say(found)
        self._build_seconds = BUILD_SECONDS
        self._failures = 0
        self._won: WeakSet[Contest] = WeakSet()
        self._saved_seconds = 0.0
        self._wanted: list[Wanted] = []
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

    def _say(self, choice: str) -> None:
        self.reason = f"{choice}; {self._precision_reason}"

    def compile(self, spec: StepSpec) -> Step:
        eager = super().compile(spec)
        contests: dict[Any, Contest] = {}

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            if self._engines is None:
                return eager(picture, step_size, targets)
            picture = picture.to(self.device)
            key = picture.shape[0], *(tuple(target.shape) for own in targets for target in own)
            if key not in contests:
                contests[key] = Contest()
            return self._take_turn(contests[key], spec, eager, picture, step_size, targets)

        return step

    def _take_turn(self, contest: Contest, spec: StepSpec, eager: Step, picture: Tensor, step_size: float,
                   targets: AllTargets) -> Tensor:
        if contest.winner == "eager":
            return eager(picture, step_size, targets)
        if contest.engine is None:
            self._see_to_an_engine(contest, spec, picture, targets)
            _wait(picture.device)
            begin = time.perf_counter()
            found = eager(picture, step_size, targets)
            _wait(picture.device)
            contest.spent_seconds += time.perf_counter() - begin
            return found
        unmeasured = contest.winner is None and self._building.locked()  # no time for it: another one is being built
        if unmeasured and not self._won:
            return eager(picture, step_size, targets)
        try:
            if unmeasured or contest.winner is not None:
                self._saved_seconds += contest.saves_seconds
                return contest.run(picture, step_size, targets)
            found = contest.turn(eager, picture, step_size, targets)
            if contest.winner is not None:
                self._announce(contest, spec)
            return found
        except Exception as error:  # one that rested is not to be had again, perhaps: a show does not end by it
            self._give_up(contest, spec, error)
            return eager(picture, step_size, targets)

    def _see_to_an_engine(self, contest: Contest, spec: StepSpec, picture: Tensor, targets: AllTargets) -> None:
        """One that was kept is taken at once; a new one is built when its time has come."""
        if self._failures >= FAILURES_BORNE:
            return
        if not contest.sought:
            contest.sought = True
        elif contest.missing and contest.spent_seconds + self._saved_seconds > self._build_seconds:
            contest.missing, contest.begun = False, True
            self._saved_seconds = max(0.0, self._saved_seconds - self._build_seconds)
        else:
            return
        self._wanted.append((contest, spec, picture, targets))
        if not self._building.locked():  # else whoever builds finds it
            _begin(self._bring_wanted)

    def _bring_wanted(self) -> None:
        """In the background, one after the other, the newest first: it is the size of now."""
        while self._wanted and not _ending.is_set() and self._building.acquire(False):
            try:
                if self._wanted:  # nobody else took it meanwhile
                    self._bring(*self._wanted.pop())
            finally:
                self._building.release()

    def _bring(self, contest: Contest, spec: StepSpec, picture: Tensor, targets: AllTargets) -> None:
        """Whatever goes wrong here, eager goes on."""
        assert self._engines is not None
        try:
            if contest.begun:
                contest.engine, self._build_seconds = self._engines.prepare_aside(spec, picture, targets)
            else:
                contest.engine = self._engines.find(spec, picture, targets)
                contest.missing = contest.engine is None
        except Exception as error:
            if not _ending.is_set():
                self._give_up(contest, spec, error)

    def _give_up(self, contest: Contest, spec: StepSpec, error: Exception) -> None:
        """On this engine: eager goes on for its size."""
        assert self._engines is not None
        self._failures += 1
        self._won.discard(contest)
        contest.winner, contest.engine = "eager", None
        self._say(f"eager at {spec.width}x{spec.height}, as {self._engines.name} failed "
                  f"({(str(error) or type(error).__name__).splitlines()[0]})")
        self.name = self._engines.name if self._won else "eager"
        log.warning("%s", self.reason)

    def _announce(self, contest: Contest, spec: StepSpec) -> None:
        assert self._engines is not None and contest.winner is not None
        engine, ratio = self._engines.name, contest.eager_seconds / contest.engine_seconds
        self._say(f"{engine} took {1e3 * contest.engine_seconds:.1f} ms a step of {spec.width}x{spec.height} where "
                  f"eager took {1e3 * contest.eager_seconds:.1f}, {ratio:.2f}x its speed: "
                  f"{engine if contest.winner == 'engine' else 'eager'} goes on")
        self._failures = 0
        if contest.winner == "engine":
            self.name = engine
            self._won.add(contest)
        else:
            contest.engine = None
        log.info("%s", self.reason)


class Contest:
    """Eager and an engine in turn at real steps, for one size, objective and batch."""

    def __init__(self) -> None:
        self.sought = self.missing = self.begun = False
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

    def turn(self, eager: Step, picture: Tensor, step_size: float, targets: AllTargets) -> Tensor:
        name = min(self._times, key=lambda name: len(self._times[name]))
        work: Callable[..., Tensor] = eager if name == "eager" else self.run
        _wait(picture.device)
        begin = time.perf_counter()
        found = work(picture, step_size, targets)
        _wait(picture.device)
        self._times[name].append(time.perf_counter() - begin)
        if len(self._times["engine"]) > TURNS:
            self.winner = "engine" if self.engine_seconds < WORTH * self.eager_seconds else "eager"
        return found


def _begin(work: Callable[..., None], *given: object) -> None:
    """In a thread. The process waits for it at its end: one that came back from an engine's library after the
    interpreter was gone would abort it.
    """
    atexit.unregister(_end)
    atexit.register(_end)
    _threads[:] = [thread for thread in _threads if thread.is_alive()]
    _threads.append(threading.Thread(target=work, args=given, daemon=True, name="streamdream-engine"))
    _threads[-1].start()


def _end() -> None:
    _ending.set()
    build_process.give_up()
    for thread in _threads:
        thread.join(PATIENCE_SECONDS)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
