"""Run a command in a fork of this process, which has loaded all libraries, and watch it: time, memory, its end."""
from __future__ import annotations

import atexit
import gc
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

MAX_SECONDS, MAX_BYTES = 20.0, 2 * 10**9
POLL_SECONDS = 0.01
PAGE = os.sysconf("SC_PAGE_SIZE")
MODULES = ("torch", "av", "cv2", "h5py", "safetensors.torch", "google.protobuf.message", "PIL.Image", "PIL.ExifTags",
           "PIL.ImageFont")


@dataclass(frozen=True)
class End:
    """How a process ended; ``killed`` says why it was, if it was."""

    code: int
    """Its exit code, or minus the number of the signal."""
    seconds: float
    peak_bytes: int
    killed: str


def preload() -> None:
    """Load what the commands load, and the network, once for all children; no thread may start here."""
    import streamdream

    package = [module.name for module in pkgutil.walk_packages(streamdream.__path__, "streamdream.")]
    for name in (*MODULES, *package):  # all, so that the code may change during a long run
        if not name.endswith("__main__"):
            importlib.import_module(name)
    import cv2
    import torch
    from PIL import Image

    from streamdream import models

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    Image.init()
    models.get("inception_v3").load_weights()
    gc.collect()
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads do not survive a fork"


def run(action: Callable[[], int], folder: Path, environment: dict[str, str]) -> End:
    """Call ``action`` in a child, whose exit code it returns, with ``folder`` as the current one; stdout and stderr go
    to ``stdout`` and ``stderr`` beside it.
    """
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(action, folder, environment)
    return _watch(pid, begin)


def _child(action: Callable[[], int], folder: Path, environment: dict[str, str]) -> NoReturn:
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        os.environ.update(environment)
        tempfile.tempdir = None
        atexit._clear()
        for name in ("SIGINT", "SIGTERM"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        try:
            code = action()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _watch(pid: int, begin: float) -> End:
    killed, peak = "", 0
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return End(os.waitstatus_to_exitcode(status), time.monotonic() - begin,
                       max(peak, usage.ru_maxrss * 1024), killed)
        peak = max(peak, _resident(pid))
        if not killed and peak > MAX_BYTES:
            killed = "memory"
        elif not killed and time.monotonic() - begin > MAX_SECONDS:
            killed = "time"
        if killed:
            os.killpg(pid, signal.SIGKILL) if os.getpgid(pid) == pid else os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
