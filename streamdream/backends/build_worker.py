"""The child process of ``build_process``: builds the engines that it is asked for on stdin, answers on stdout."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import sys
import threading
import time
from functools import lru_cache
from queue import Empty, Queue
from typing import IO, TYPE_CHECKING, Any

from streamdream.backends.build_process import BuildRequest, _environment
from streamdream.errors import StreamdreamError

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


def main(niceness: str, waiting_seconds: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed here goes nowhere
    if hasattr(os, "nice"):
        os.nice(int(niceness))
    orders: Queue[tuple[BuildRequest, dict[str, str]]] = Queue()
    threading.Thread(target=_read_requests, args=(os.fdopen(os.dup(0), "rb"), orders), daemon=True).start()
    relay = JsonLogHandler(answers)
    logging.getLogger("streamdream").setLevel(logging.INFO)
    logging.getLogger("streamdream").addHandler(relay)
    accounted_seconds = 0.0
    with contextlib.suppress(Empty):
        while True:
            order, environment = orders.get(timeout=float(waiting_seconds))
            _apply_environment(environment)
            try:
                _build(order)
            except Exception as error:  # whatever an engine's maker raises
                text = str(error) if isinstance(error, StreamdreamError) else f"{type(error).__name__}: {error}"
                relay.say(error=text.strip().splitlines()[0])
            else:
                relay.say(cpu_seconds=time.process_time() - accounted_seconds)
            accounted_seconds = time.process_time()
    relay.say(left=True)
    os._exit(0)  # engines' libraries take seconds to end


def _apply_environment(environment: dict[str, str]) -> None:
    for name in _environment().keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _read_requests(given: IO[bytes], orders: Queue[Any]) -> None:
    """Ends this process when nobody holds the other end any more."""
    try:
        while True:
            orders.put(pickle.load(given))
    finally:
        os._exit(1)


def _build(order: BuildRequest) -> None:
    import torch

    torch.set_num_threads(order.threads)
    backend = _backend(order.backend, order.model, order.device, order.precision)
    targets = tuple(tuple(target.to(backend.device) for target in own) for own in order.targets)
    backend.get_or_build(order.spec, torch.zeros(order.shape, device=backend.device), targets)


@lru_cache(maxsize=1)
def _backend(name: str, model: str, device: str, precision: str) -> Any:
    """With its weights, for the next order."""
    from streamdream import backends, models
    from streamdream.backends.cached_engine import CachedEngineBackend

    backend: Any = backends.create(name, models.get(model), device, precision)
    assert isinstance(backend, CachedEngineBackend)
    return backend


class JsonLogHandler(logging.Handler):
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
