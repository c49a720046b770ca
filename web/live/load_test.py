"""Measure live sessions without browsers: ``python -m streamdream_web.live.load_test '{"sessions": 8}'``.

Each session is as on the page, from the JPEG of a frame that arrives to that of its residual that leaves; only the
WebSocket is left out. Frames come at the pace of a camera, whatever comes back.
"""
from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.sample_files import CLIP, sample_file
from streamdream.media.sources.video import open_source
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings, read_preset
from streamdream.system.gpu_monitor import GpuMonitor
from streamdream.system.process_tuning import tune_process
from streamdream.system.stats import percentile, rss_mb

from ..core.state import AppState
from .browser_io import HEADER
from .session import LiveSession

CLIP_FRAMES = 120
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Load:
    """What is measured: so many sessions, of cameras of that size and rate (Hz), for so many seconds after as many
    ``settle_seconds``, in which fields are found and engines built.
    """

    sessions: int = 8
    width: int = 640
    height: int = 480
    rate: float = 30.0
    seconds: float = 20.0
    settle_seconds: float = 8.0
    field_height: int = 480
    layers: str = ""
    clip: str = ""
    model: str = "inception_v3"
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    frame_path: str = "auto"
    min_dream_rate: float = 12.0


class Visitor:
    """Sends the frames of a clip to a session and notes when each residual comes."""

    def __init__(self, app_state: AppState, jpegs: Sequence[bytes], load: Load) -> None:
        self.came: list[tuple[int, float, int]] = []
        """(number, time of arrival, server's ms) of each residual."""
        self.error = ""
        self._jpegs, self._load = jpegs, load
        self.sent: dict[int, float] = {}
        self._over = threading.Event()
        self.session = LiveSession(app_state, "127.0.0.1", self._receive, self._ended)
        self._thread = threading.Thread(target=self._send, name="streamdream-visitor", daemon=True)

    def start(self) -> None:
        self.session.start()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.session.stop()
        self.session.join(20.0)

    def _receive(self, message: bytes) -> None:
        number, server_ms = HEADER.unpack_from(message)
        self.came.append((number, time.perf_counter(), server_ms))

    def _ended(self, error: str) -> None:
        self.error = error

    def _send(self) -> None:
        began, number = time.perf_counter(), 0
        while not self._over.wait(max(0.0, began + number / self._load.rate - time.perf_counter())):
            self.sent[number] = time.perf_counter()
            self.session.push(number, self._jpegs[number % len(self._jpegs)])
            number += 1


def measure(load: Load) -> dict[str, Any]:
    """Return ``{"rows": [one for each session], "gpu_busy_percent": ..., ...}``."""
    dream = DreamSettings(**read_preset("live"))
    stream = StreamSettings(field_height=load.field_height, model=load.model, backend=load.backend, device=load.device,
                            precision=load.precision, frame_path=load.frame_path)
    app_state = AppState(WebSettings(max_sessions=max(1, load.sessions)),
                         replace(dream, layers=load.layers) if load.layers else dream, stream,
                         LiveSettings(min_dream_rate=load.min_dream_rate))
    try:
        app_state.warm_up()
        jpegs = read_jpegs(load)
        visitors = [Visitor(app_state, jpegs, load) for _ in range(load.sessions)]
        for visitor in visitors:
            visitor.start()
        time.sleep(load.settle_seconds)
        dreams = [visitor.session.dreams for visitor in visitors]
        began, cpu_began = time.perf_counter(), time.process_time()
        with GpuMonitor(str(app_state.backend.device)) as gpu:
            time.sleep(load.seconds)
        until, cpu_share = time.perf_counter(), time.process_time() - cpu_began
        rows = [summarize(visitor, began, until, before) for visitor, before in zip(visitors, dreams, strict=True)]
        for visitor in visitors:
            visitor.stop()
    finally:
        app_state.close()
    return {"rows": rows, "gpu_busy_percent": gpu.busy_percent, "cpu_share": cpu_share / (until - began),
            "peak_rss_mb": rss_mb()}


def summarize(visitor: Visitor, began: float, until: float, dreams_before: int) -> dict[str, Any]:
    """Return the figures of one session between two times."""
    came = [(number, at) for number, at, _ in visitor.came if began <= at < until]
    sent = sum(began <= at < until for at in list(visitor.sent.values()))
    latencies = [1e3 * (at - visitor.sent[number]) for number, at in came]
    gaps = [1e3 * (after - before) for (_, before), (_, after) in pairwise(came)]
    facts = visitor.session.facts()
    return {"shown_ratio": len(came) / max(1, sent), "fps": len(came) / (until - began),
            "dreams_per_s": (visitor.session.dreams - dreams_before) / (until - began),
            "latency_p50_ms": percentile(latencies, 0.5), "latency_p95_ms": percentile(latencies, 0.95),
            "longest_gap_ms": max(gaps, default=0.0), "field": facts["field"], "backend": facts["backend"],
            "precision": facts["precision"], "device": facts["device"], "error": visitor.error}


def read_jpegs(load: Load) -> list[bytes]:
    """Return the frames of the clip, at the size of the cameras."""
    with open_source(load.clip or str(sample_file(CLIP))) as source:
        images = [cv2().resize(frame.image, (load.width, load.height))
                  for frame, _ in zip(source, range(CLIP_FRAMES), strict=False)]
    return [encode(image) for image in images]


def encode(image: NDArray[np.uint8]) -> bytes:
    jpeg = cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR),
                          [cv2().IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    encoded: bytes = jpeg.tobytes()
    return encoded




if __name__ == "__main__":
    tune_process()
    sys.stdout.write(json.dumps(measure(Load(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))))
