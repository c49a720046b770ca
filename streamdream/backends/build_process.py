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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamdream.backends.build_worker import main
from streamdream.errors import EngineError

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


if __name__ == "__main__":
    main(*sys.argv[1:])
