"""Run the command line: in a process of its own, or in this one."""
from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import AnyStr
from unittest import mock

import pytest

from streamdream import cli

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def without_settings() -> dict[str, str]:
    """The environment but for the user's settings of the command; the cache folder stays, which conftest.py sets."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith("STREAMDREAM_") or name == "STREAMDREAM_CACHE"}


ENVIRONMENT = without_settings()
PROGRAM_ENVIRONMENT = ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[1])}
"""Of programs in strings, which import ``support``."""
PROGRESS = re.compile(r"→|^\d+( of \d+)? (frames|steps|layers|MB)\b")
"""Lines of a run that began: its title, and how far it is."""


def streamdream(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "streamdream", *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd, env=ENVIRONMENT | environment, timeout=120)


def here(capsys: pytest.CaptureFixture[AnyStr], *arguments: object, **environment: str
         ) -> subprocess.CompletedProcess[AnyStr]:
    """Call the command in this process, which has loaded already what a new one takes seconds for."""
    capsys.readouterr()
    texts = [*map(str, arguments)]
    with mock.patch.dict(os.environ, without_settings() | environment, clear=True), preserved_process():
        try:
            code = cli.run(texts)
        except SystemExit as end:  # after --help
            code = int(end.code or 0)
    said = capsys.readouterr()
    return subprocess.CompletedProcess(texts, code, said.out, said.err)


@contextmanager
def preserved_process() -> Iterator[None]:
    """What a command sets for its process is set back: signals, hooks, the log."""
    log = logging.getLogger("streamdream")
    logged = log.level, log.propagate, log.handlers
    hook, handlers = sys.unraisablehook, {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        log.setLevel(logged[0])  # which forgets what it has found to be enabled
        log.propagate, log.handlers = logged[1:]
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def fails(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on stderr, after progress if a run began, that begins with ``error:``; nothing on stdout; that code."""
    errors = [line for line in result.stderr.splitlines() if not PROGRESS.search(line)]
    assert len(errors) == 1 and errors[0].startswith("error: "), result.stderr
    for part in parts:
        assert part in errors[0]
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
