"""Measure live sessions that share a device, as on the page but without browsers: see web/live/load_test.py."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from streamdream.errors import StreamdreamError

from . import LAYERS, Options, Progress, Report, conditions
from .live import read_clip, write_mjpeg

SESSIONS = 8
WIDTH, HEIGHT, RATE = 640, 480, 30
DEFAULT_SECONDS, SETTLE_SECONDS = 20.0, 8.0


def run(options: Options, progress: Progress) -> Report:
    width, height = options.width or WIDTH, options.height or HEIGHT
    load = {"sessions": options.sessions or SESSIONS, "width": width, "height": height, "rate": options.rate or RATE,
            "seconds": options.seconds or DEFAULT_SECONDS,
            "settle_seconds": min(SETTLE_SECONDS, options.seconds or SETTLE_SECONDS),
            "field_height": min(options.field_height or height, height), "layers": options.layers or LAYERS,
            "model": options.model, "backend": options.backend, "device": options.device,
            "precision": options.precision, "frame_path": options.frame_path, "min_dream_rate": options.min_dream_rate}
    progress(f"{load['sessions']} sessions of {width}x{height} at {load['rate']}/s, {load['seconds']:g} s")
    with tempfile.TemporaryDirectory() as folder:
        clip = write_mjpeg(Path(folder) / "camera.mjpeg", read_clip(options, width, height))
        found = measure({**load, "clip": str(clip)})
    rows = [{"session": number, **row} for number, row in enumerate(found.pop("rows"), 1)]
    return Report("sessions", conditions(**load, **found), rows)


def measure(load: dict[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own, as the server is one. Raises StreamdreamError with its last line."""
    child = subprocess.run([sys.executable, "-m", "streamdream_web.live.load_test", json.dumps(load)],
                           capture_output=True, text=True)
    if child.returncode:
        raise StreamdreamError(f"the sessions failed: {(child.stderr.strip().splitlines() or ['no output'])[-1]}")
    found: dict[str, Any] = json.loads(child.stdout)
    return found
