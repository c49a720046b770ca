"""An engine built in a process of its own, while this one dreams on.

Recording a step's graph takes seconds of Python, which hold the interpreter's lock: a live picture would stand still
for as long. So a child records, builds and compares at low priority, and leaves the engine in the cache. It ends with
whoever asked, even by a kill: it watches its standard input, which closes then.

    this process ──Order, pickled──▶ child ──lines of JSON: what it logs, and last what came of it──▶ this process
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
from typing import IO, TYPE_CHECKING, Any

from streamdream.errors import EngineError, StreamdreamError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, StepSpec

NICENESS = 10
"""Of the child: what dreams goes first. It must stay in this process's session: Linux shares the processors out among
sessions before it looks at niceness (autogroups), and steps took 462 ms beside a build in one of its own, where they
take 54 beside this and 49 alone (two cores, 256x144). A process group of its own keeps Ctrl-C from it.
"""
_children: set[subprocess.Popen[bytes]] = set()
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
    found_here = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, str(NICENESS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, process_group=0, env=found_here) as child:
        assert child.stdin is not None and child.stdout is not None
        _children.add(child)
        atexit.unregister(give_up)
        atexit.register(give_up)
        try:
            with contextlib.suppress(BrokenPipeError):  # what it died of is told below
                pickle.dump(order, child.stdin)
                child.stdin.flush()
            return _last_word(child.stdout)
        finally:
            _children.discard(child)
            child.kill()


def give_up() -> None:
    """Nobody wants any more what is being built."""
    for child in list(_children):
        child.kill()


def _last_word(lines: IO[bytes]) -> float:
    for line in lines:
        word: dict[str, Any] = json.loads(line)
        if "log" in word:
            log.log(word["level"], "%s", word["log"])
        elif "error" in word:
            raise EngineError(word["error"])
        else:
            return float(word["cpu_seconds"])
    raise EngineError("the process that built the engine has died")


def main() -> None:
    """The child."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed here goes nowhere
    if hasattr(os, "nice"):
        os.nice(int(sys.argv[1]))
    given = os.fdopen(os.dup(0), "rb")
    order: Order = pickle.load(given)
    threading.Thread(target=_end_with, args=(given,), daemon=True).start()
    relay = Relay(answers)
    logging.getLogger("streamdream").setLevel(logging.INFO)
    logging.getLogger("streamdream").addHandler(relay)
    try:
        _work(order)
    except Exception as error:  # whatever an engine's maker raises
        text = str(error) if isinstance(error, StreamdreamError) else f"{type(error).__name__}: {error}"
        relay.say(error=text.strip().splitlines()[0])
    else:
        relay.say(cpu_seconds=time.process_time())
    os._exit(0)  # engines' libraries take seconds to end


def _work(order: Order) -> None:
    import torch

    from streamdream import backends, models
    from streamdream.backends.stored import StoredEngineBackend

    torch.set_num_threads(order.threads)
    backend: Any = backends.create(order.backend, models.get(order.model), order.device, order.precision)
    assert isinstance(backend, StoredEngineBackend)
    targets = tuple(tuple(target.to(backend.device) for target in own) for own in order.targets)
    backend.prepare(order.spec, torch.zeros(order.shape, device=backend.device), targets)


def _end_with(given: Any) -> None:
    """Ends this process when nobody holds the other end any more."""
    while given.read(4096):
        continue
    os._exit(1)


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
    main()
