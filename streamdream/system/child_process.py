"""End child processes."""
from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from typing import Any

STOP_SECONDS = 5.0


def end(process: subprocess.Popen[Any], reader: threading.Thread) -> None:
    """Kill a process, wait for it and for the thread that reads its output, and close its pipes."""
    process.kill()
    process.wait(STOP_SECONDS)
    reader.join(STOP_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
