"""A display in memory, for windows and pictures of the screen."""
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def display(size: str, *programs: str) -> Iterator[str]:
    """Its name, as DISPLAY wants it; ``size`` as ``640x480``. Where Xvfb or one of ``programs`` is missing, the test is
    skipped.
    """
    for program in ("Xvfb", *programs):
        if not shutil.which(program):
            pytest.skip(f"{program} is not here: apt-get install {program.lower()}")
    reading, writing = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-noreset", "-screen", "0", f"{size}x24"],
                              pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as answer:
            name = ":" + answer.readline().strip()
        yield name
    finally:
        server.terminate()
        server.wait()
