"""Run the command line: in a process of its own, or in this one."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamdream import cli

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("STREAMDREAM_")}
PROGRAM_ENVIRONMENT = ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[1])}
"""Of programs in strings, which import ``support``."""


def streamdream(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "streamdream", *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd, env=ENVIRONMENT | environment, timeout=120)


def here(capsys: pytest.CaptureFixture[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has loaded already what a new one takes seconds for."""
    capsys.readouterr()
    code = cli.run(texts := [*map(str, arguments)])
    said = capsys.readouterr()
    return subprocess.CompletedProcess(texts, code, said.out, said.err)


def fails(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on stderr, after progress if a run began, that begins with ``error:``; nothing on stdout; that code."""
    errors = [line for line in result.stderr.splitlines() if "→" not in line and "frames/s" not in line]
    assert len(errors) == 1 and errors[0].startswith("error: "), result.stderr
    for part in parts:
        assert part in errors[0]
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
