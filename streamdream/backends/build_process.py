"""Engines built in another process, while this one dreams on.

Tracing a step's graph takes seconds of Python, which hold the GIL: a live picture would stand still for as long. So a
child process traces, builds and verifies at low priority, and leaves the engine in the cache. There is one at a time,
one for each engine. It ends with the process that started it, even by SIGKILL: it watches its stdin, which closes then.

    this process ──BuildRequest, pickled──▶ child ──lines of JSON: its log, then how it ended──▶ this process
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
_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildRequest:
    """What to build: of a network in the registry, for pictures of ``shape`` and targets like these.

    Tensors are on the CPU. ``threads`` are those that the engine will run on; ``begun_seconds`` is as in
    ``EngineRequest``.
    """

    backend: str
    model: str
    device: str
    precision: str
    threads: int
    spec: StepSpec
    shape: tuple[int, ...]
    targets: AllTargets
    begun_seconds: float


def build_in_subprocess(request: BuildRequest) -> None:
    """Build an engine and store it in the cache, where ``load`` of its backend finds it.

    Raises EngineError with what the child reports.
    """
    global _child
    with _lock:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        _child = subprocess.Popen([sys.executable, "-m", WORKER_MODULE, str(NICENESS)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0, env=environment)
        try:
            _send(_child, request)
            _relay(_child)
        finally:
            _child.kill()
            _child.wait()
            for pipe in (_child.stdin, _child.stdout):
                with contextlib.suppress(OSError):  # bytes that nobody will read
                    assert pipe is not None
                    pipe.close()
            _child = None


def cancel() -> None:
    """Kill the child, if there is one: nobody needs its engine any more. From any thread."""
    child = _child  # the other thread may replace it meanwhile
    if child is not None:
        child.kill()
        child.wait()


atexit.register(cancel)


def _send(child: subprocess.Popen[bytes], request: BuildRequest) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # ``_relay`` says that it has died
        pickle.dump(request, child.stdin)
        child.stdin.flush()


def _relay(child: subprocess.Popen[bytes]) -> None:
    """Log what the child logs, until it is done. Raises EngineError."""
    assert child.stdout is not None
    for line in child.stdout:
        message: dict[str, Any] = json.loads(line)
        if "log" in message:
            log.log(message["level"], "%s", message["log"])
        elif "error" in message:
            raise EngineError(message["error"])
        else:
            return
    raise EngineError("the process that built the engine has died")
