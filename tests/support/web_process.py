"""A server in its own process, as an operator starts it."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.waiting import until


@contextmanager
def server(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A server in its own process, and the file of its stderr; its temporary files are in ``folder``."""
    command = [sys.executable, "-m", "streamdream", "web", "--port", "0", "--field-height", "64", *flags]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, text=True,
                                   env=os.environ | {"TMPDIR": str(folder), "STREAMDREAM_CACHE": str(folder / "cache")})
    try:
        until(lambda: answers(log.read_text()) or process.poll() is not None, 60)
        yield process, log
    finally:
        process.kill()
        process.wait()


def answers(text: str) -> bool:
    """Whether the server whose log this is answers requests."""
    link = re.search(r"http://[0-9.:]+", text)
    if link:
        with suppress(OSError), urllib.request.urlopen(f"{link[0]}/healthz", timeout=5):
            return True
    return False
