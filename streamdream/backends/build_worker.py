"""The child process of ``build_process``: reads a request from stdin, builds the engine, reports on stdout."""
from __future__ import annotations

import json
import logging
import os
import pickle
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from streamdream.errors import StreamdreamError

if TYPE_CHECKING:
    from streamdream.backends.build_process import BuildRequest


def main(niceness: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # drop what libraries print
    if hasattr(os, "nice"):
        os.nice(int(niceness))
    stdin = os.fdopen(os.dup(0), "rb")
    request: BuildRequest = pickle.load(stdin)
    threading.Thread(target=_exit_with_parent, args=(stdin,), daemon=True).start()
    handler = JsonLogHandler(answers)
    logging.getLogger("streamdream").setLevel(logging.INFO)
    logging.getLogger("streamdream").addHandler(handler)
    try:
        _build(request)
    except Exception as error:  # libraries of engines may raise any type
        text = str(error) if isinstance(error, StreamdreamError) else f"{type(error).__name__}: {error}"
        handler.send(error=text.strip().splitlines()[0])
    else:
        handler.send(done=True)
    os._exit(0)  # skip the exit functions of the libraries, which take seconds


def _exit_with_parent(stdin: IO[bytes]) -> None:
    """Exit when the parent process closes its end of the pipe, or ends."""
    stdin.read(1)
    os._exit(1)


def _build(request: BuildRequest) -> None:
    import torch

    from streamdream import backends, models
    from streamdream.backends.cached_engine import CachedEngineBackend
    from streamdream.backends.engine import EngineRequest
    from streamdream.system.torch_threads import set_process_threads

    set_process_threads(request.threads)
    backend: Any = backends.create(request.backend, models.get(request.model), request.device, request.precision)
    assert isinstance(backend, CachedEngineBackend)
    targets = tuple(tuple(target.to(backend.device) for target in of_term) for of_term in request.targets)
    backend.build(EngineRequest(request.spec, torch.Size(request.shape), targets, request.begun_seconds))


class JsonLogHandler(logging.Handler):
    """Writes log records and the result of the build as lines of JSON."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=record.getMessage(), level=record.levelno)

    def send(self, **message: Any) -> None:
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
