"""Build engines in a child process.

Tracing the graph of a step takes seconds of Python, which hold the GIL and would stall a live run. So a child process
traces, builds and verifies at low priority, and stores the engine in the cache. Each engine has its own process, one at
a time. The child watches its stdin, which closes when this process ends, even by SIGKILL; then it ends, too.

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
"""Niceness of the child, so that dreams go first. The child must stay in this process's session: Linux divides CPU time
between sessions before it regards niceness (autogroup). A step takes 49 ms alone, 54 ms during a build in this session
and 462 ms during one in another session (two cores, 256x144). A separate process group protects it from Ctrl-C.
"""
_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildRequest:
    """An engine to build: for a network of the registry, pictures of ``shape`` and targets of these shapes.

    Tensors are on the CPU. ``threads`` is the number that will run the engine; ``begun_seconds`` is as in
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
                with contextlib.suppress(OSError):  # unread bytes
                    assert pipe is not None
                    pipe.close()
            _child = None


def cancel() -> None:
    """Cancel the running build, if there is one. Thread-safe."""
    child = _child  # another thread may replace it meanwhile
    if child is not None:
        child.kill()
        child.wait()


atexit.register(cancel)


def _send(child: subprocess.Popen[bytes], request: BuildRequest) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # ``_relay`` reports that it has died
        pickle.dump(request, child.stdin)
        child.stdin.flush()


def _relay(child: subprocess.Popen[bytes]) -> None:
    """Forward the log of the child until it is done. Raises EngineError if the build failed."""
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
