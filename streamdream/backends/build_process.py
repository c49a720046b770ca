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

from streamdream.errors import EngineError

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, StepSpec

WORKER_MODULE = "streamdream.backends.build_worker"
NICENESS = 10
"""Of the child: what dreams goes first. It must stay in this process's session: Linux shares the processors out among
sessions before it looks at niceness (autogroups), and steps took 462 ms beside a build in one of its own, where they
take 54 beside this and 49 alone (two cores, 256x144). A process group of its own keeps Ctrl-C from it.
"""
IDLE_TIMEOUT_SECONDS = 20.0
"""How long the child waits for another order."""
_worker: Worker | None = None
_lock = threading.Lock()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildRequest:
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


def build_in_subprocess(order: BuildRequest) -> float:
    """Has it built and kept in the cache, where ``find`` of its backend finds it, unless nothing can be kept.

    Returns the processor's seconds that it took. Raises EngineError with what the child said.
    """
    with _lock:
        try:
            return _current_worker().request(order)
        except WorkerExited:
            return _current_worker().request(order)


def cancel() -> None:
    """Nobody wants any more what is being built. From any thread."""
    builder = _worker  # another thread may forget it meanwhile
    if builder is not None:
        builder.cancel()
        if _lock.acquire(False):  # else whoever asks it finds it dead, and does the rest
            try:
                builder.close()
            finally:
                _lock.release()


def _current_worker() -> Worker:
    """The child that waits, or a new one."""
    global _worker
    if _worker is not None and not _worker.usable():
        _worker.close()
        _worker = None
    if _worker is None:
        _worker = Worker()
        atexit.unregister(cancel)
        atexit.register(cancel)
    return _worker


class WorkerExited(Exception):
    """The child had ended before it took the order up."""


class Worker:
    """The child, from here."""

    def __init__(self) -> None:
        self._niceness = NICENESS
        found_here = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", WORKER_MODULE, str(NICENESS), str(IDLE_TIMEOUT_SECONDS)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, process_group=0, env=found_here)

    def usable(self) -> bool:
        return self._child.poll() is None and self._niceness == NICENESS

    def request(self, order: BuildRequest) -> float:
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
                self.close()
                raise WorkerExited
            else:
                return float(word["cpu_seconds"])
        self.close()
        raise EngineError("the process that built the engine has died")

    def cancel(self) -> None:
        """From any thread."""
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        """Where nobody asks it."""
        self.cancel()
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):  # what nobody will read
                assert pipe is not None
                pipe.close()


def _environment() -> dict[str, str]:
    """What may have changed since the child was begun."""
    return {name: value for name, value in os.environ.items() if name.startswith("STREAMDREAM_")}

