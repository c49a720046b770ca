"""Pausing ``streamdream render``: by SIGUSR1, and by a key on a terminal."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.commands import ENVIRONMENT
from support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGUSR1 nor a pty")
RENDER = ("render", "lavfi:testsrc2=s=96x72:r=25:d=400", "--field-height", "72", "--layers", "mixed0",
          "--warmup-steps", "1", "--steps", "1", "--backend", "eager")
Process = subprocess.Popen[bytes]


class Running:
    """A render in a process of its own, what it says, and how far it is."""

    def __init__(self, process: Process, log: Path, progress: Path) -> None:
        self.process, self._log, self._progress = process, log, progress

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def blocks(self) -> int:
        """How often it said how far it is."""
        return self._progress.read_text().count("progress=") if self._progress.exists() else 0

    def wait_for(self, line: str, times: int = 1) -> None:
        until(lambda: self.log.count(line) >= times, 60, lambda: self.log)

    def wait_for_frames(self) -> None:
        """Until there are frames that are not there now."""
        before = self.blocks
        until(lambda: self.blocks > before, 60, lambda: self.log)


IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program whose standard input becomes the terminal of its session."""


@contextmanager
def rendering(tmp_path: Path, terminal: int | None = None) -> Iterator[Running]:
    log, progress = tmp_path / "log", tmp_path / "progress"
    before = [] if terminal is None else [sys.executable, "-c", IN_TERMINAL]
    with log.open("wb") as stderr:
        process = subprocess.Popen([*before, sys.executable, "-m", "streamdream", *RENDER, "-o", tmp_path / "a.mp4",
                                    "--progress", progress], stdin=subprocess.DEVNULL if terminal is None else terminal,
                                   stderr=stderr, stdout=stderr, env=ENVIRONMENT, start_new_session=True)
    try:
        yield Running(process, log, progress)
    finally:
        process.kill()
        process.wait()


def test_sigusr1_pauses_and_resumes_and_sigint_ends_a_pause(tmp_path: Path) -> None:
    with rendering(tmp_path) as run:
        run.wait_for_frames()
        run.process.send_signal(signal.SIGUSR1)
        run.wait_for("paused; ")
        assert "SIGUSR1 resumes" in run.log
        blocks = run.blocks
        run.process.send_signal(signal.SIGUSR1)
        run.wait_for("resumed")
        assert run.blocks <= blocks + 1
        run.wait_for_frames()
        run.process.send_signal(signal.SIGUSR1)
        run.wait_for("paused; ", times=2)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(20) == 130
        assert run.log.splitlines()[-1].startswith("error: interrupted; ")


@pytest.fixture()
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends: what a person types into, and what a program reads from."""
    pty = pytest.importorskip("pty")
    ends: tuple[int, int] = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def modes(end: int) -> list[Any]:
    import termios

    return termios.tcgetattr(end)


def test_the_key_p_pauses_and_resumes_and_ctrl_c_ends_a_pause(tmp_path: Path, terminal: tuple[int, int]) -> None:
    keyboard, end = terminal
    before = modes(end)
    with rendering(tmp_path, end) as run:
        run.wait_for_frames()
        assert modes(end) != before  # a key counts at once and is not shown
        os.write(keyboard, b"xp")
        run.wait_for("paused; p or SIGUSR1 resumes")
        os.write(keyboard, b"p")
        run.wait_for("resumed")
        run.wait_for_frames()
        os.write(keyboard, b"p")
        run.wait_for("paused; ", times=2)
        os.write(keyboard, b"\x03")
        assert run.process.wait(20) == 130
    assert modes(keyboard) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGQUIT, -signal.SIGQUIT)])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals, code: int, tmp_path: Path,
                                                terminal: tuple[int, int]) -> None:
    keyboard, end = terminal
    before = modes(end)
    with rendering(tmp_path, end) as run:
        until(lambda: modes(end) != before, 60, lambda: run.log)
        run.process.send_signal(number)
        assert run.process.wait(20) == code
    assert modes(keyboard) == before
