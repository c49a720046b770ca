"""Engines built in another process, while this one dreams on.

Recording a step's graph takes seconds of Python, which hold the interpreter's lock: a live picture would stand still
for as long. So a child records, builds and compares at low priority, and leaves the engine in the cache. It waits a
while for the next order, which takes it a third of the time of the first, and ends with whoever asked, even by a kill:
it watches its standard input, which closes then.

    this process ──Orders, pickled──▶ child ──lines of JSON: what it logs, and last what came of each──▶ this process
"""
from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, Queue
from typing import IO, TYPE_CHECKING, Any

from streamdream.errors import EngineError, StreamdreamError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, StepSpec

NICENESS = 10
"""Of the child: what dreams goes first. It must stay in this process's session: Linux shares the processors out among
sessions before it looks at niceness (autogroups), and steps took 462 ms beside a build in one of its own, where they
take 54 beside this and 49 alone (two cores, 256x144). A process group of its own keeps Ctrl-C from it.
"""
WAITING_SECONDS = 20.0
"""How long the child waits for another order."""
_builder: Builder | None = None
_one_at_a_time = threading.Lock()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What to build: of a network in the registry, for pictures of ``shape`` and targets such as these.

    Tensors lie on the processor. ``threads`` are those that the engine will run on.
    """

    backend: str
    model: str
    device: str
    precision: str
    threads: int
    spec: StepSpec
    shape: tuple[int, ...]
    targets: AllTargets


def build(order: Order) -> float:
    """Has it built and kept in the cache, where ``find`` of its backend finds it, unless nothing can be kept.

    Returns the processor's seconds that it took. Raises EngineError with what the child said.
    """
    with _one_at_a_time:
        try:
            return _at_hand().ask(order)
        except _Left:
            return _at_hand().ask(order)


def give_up() -> None:
    """Nobody wants any more what is being built. From any thread."""
    builder = _builder  # another thread may forget it meanwhile
    if builder is not None:
        builder.give_up()
        if _one_at_a_time.acquire(False):  # else whoever asks it finds it dead, and does the rest
            try:
                builder.end()
            finally:
                _one_at_a_time.release()


def _at_hand() -> Builder:
    """The child that waits, or a new one."""
    global _builder
    if _builder is not None and not _builder.serves():
        _builder.end()
        _builder = None
    if _builder is None:
        _builder = Builder()
        atexit.unregister(give_up)
        atexit.register(give_up)
    return _builder


class _Left(Exception):
    """The child had ended before it took the order up."""


class Builder:
    """The child, from here."""

    def __init__(self) -> None:
        self._niceness = NICENESS
        found_here = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", __name__, str(NICENESS), str(WAITING_SECONDS)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, process_group=0, env=found_here)

    def serves(self) -> bool:
        return self._child.poll() is None and self._niceness == NICENESS

    def ask(self, order: Order) -> float:
        """The processor's seconds that it took. Raises EngineError, and _Left where another child may be asked."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what it died of is told below
            pickle.dump((order, _environment()), self._child.stdin)
            self._child.stdin.flush()
        for line in self._child.stdout:
            word: dict[str, Any] = json.loads(line)
            if "log" in word:
                log.log(word["level"], "%s", word["log"])
            elif "error" in word:
                raise EngineError(word["error"])
            elif "left" in word:
                self.end()
                raise _Left
            else:
                return float(word["cpu_seconds"])
        self.end()
        raise EngineError("the process that built the engine has died")

    def give_up(self) -> None:
        """From any thread."""
        self._child.kill()
        self._child.wait()

    def end(self) -> None:
        """Where nobody asks it."""
        self.give_up()
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):  # what nobody will read
                assert pipe is not None
                pipe.close()


def _environment() -> dict[str, str]:
    """What may have changed since the child was begun."""
    return {name: value for name, value in os.environ.items() if name.startswith("STREAMDREAM_")}


# --- the child --------------------------------------------------------------------------------------------------------

def main(niceness: str, waiting_seconds: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed here goes nowhere
    if hasattr(os, "nice"):
        os.nice(int(niceness))
    orders: Queue[tuple[Order, dict[str, str]]] = Queue()
    threading.Thread(target=_receive, args=(os.fdopen(os.dup(0), "rb"), orders), daemon=True).start()
    relay = Relay(answers)
    logging.getLogger("streamdream").setLevel(logging.INFO)
    logging.getLogger("streamdream").addHandler(relay)
    accounted_seconds = 0.0
    with contextlib.suppress(Empty):
        while True:
            order, environment = orders.get(timeout=float(waiting_seconds))
            _take_on(environment)
            try:
                _work(order)
            except Exception as error:  # whatever an engine's maker raises
                text = str(error) if isinstance(error, StreamdreamError) else f"{type(error).__name__}: {error}"
                relay.say(error=text.strip().splitlines()[0])
            else:
                relay.say(cpu_seconds=time.process_time() - accounted_seconds)
            accounted_seconds = time.process_time()
    relay.say(left=True)
    os._exit(0)  # engines' libraries take seconds to end


def _take_on(environment: dict[str, str]) -> None:
    for name in _environment().keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _receive(given: IO[bytes], orders: Queue[Any]) -> None:
    """Ends this process when nobody holds the other end any more."""
    try:
        while True:
            orders.put(pickle.load(given))
    finally:
        os._exit(1)


def _work(order: Order) -> None:
    import torch

    torch.set_num_threads(order.threads)
    backend = _backend(order.backend, order.model, order.device, order.precision)
    targets = tuple(tuple(target.to(backend.device) for target in own) for own in order.targets)
    backend.prepare(order.spec, torch.zeros(order.shape, device=backend.device), targets)


@lru_cache(maxsize=1)
def _backend(name: str, model: str, device: str, precision: str) -> Any:
    """With its weights, for the next order."""
    from streamdream import backends, models
    from streamdream.backends.cached_engine import StoredEngineBackend

    backend: Any = backends.create(name, models.get(model), device, precision)
    assert isinstance(backend, StoredEngineBackend)
    return backend


class Relay(logging.Handler):
    """Lines for the one who asked."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        self.say(log=record.getMessage(), level=record.levelno)

    def say(self, **word: Any) -> None:
        self._answers.write(json.dumps(word).encode() + b"\n")
        self._answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
