"""Measure a live run with numbered frames: the share that is shown, their latency, and the rate of dreams."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.automation.controls import Controls
from streamdream.dream import build
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import MissingPackage
from streamdream.live.pipeline import Live
from streamdream.live.report import LiveReport
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.media.sample_files import CLIP, sample_file
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.media.sources.video import open_source
from streamdream.settings import DreamSettings, StreamSettings, read_preset
from streamdream.system.gpu_monitor import GpuMonitor
from streamdream.system.process_tuning import freeze_gc
from streamdream.system.stats import rss_mb

from . import LAYERS, Options, Progress, Report, conditions, footage

CASES = ((1280, 720, 60, 240, False), (1920, 1080, 30, 240, False), (640, 480, 30, 480, True))
"""Width, height, frames per second, maximum lines of the field, and whether the field is fixed."""
DEVICE_CASES = ((1280, 720, 60, 240, False), (1280, 720, 60, 720, False), (1280, 720, 60, 720, True),
                (1920, 1080, 30, 720, False), (640, 480, 30, 480, False))
"""Where a GPU dreams whole frames."""
DEFAULT_SECONDS = 20.0
BITS = 16
LOOP_FRAMES = 120
"""Frames of the clip, which is looped."""


class Numbered(LiveSource):
    """Yields frames of a clip in real time, each with its number as black and white bars along the upper edge."""

    def __init__(self, images: list[NDArray[np.uint8]], rate: int, seconds: float) -> None:
        super().__init__("numbered")
        self.height, self.width = images[0].shape[:2]
        self.rate = Fraction(rate)
        self._images, self._count = images, int(rate * seconds)
        self.due: dict[int, float] = {}
        """Number of a frame -> its capture time, by ``time.perf_counter``."""

    def __iter__(self) -> Iterator[Frame]:
        started = time.perf_counter()
        for number in range(self._count):
            due = started + number / float(self.rate)
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            image = self._images[number % len(self._images)].copy()
            write_number(image, number % 2**BITS)
            self.due[number] = due
            yield timestamped_frame(image, number / float(self.rate))


def write_number(image: NDArray[np.uint8], number: int) -> None:
    height, width = image.shape[:2]
    for bit in range(BITS):
        image[:height // 12, bit * width // BITS:(bit + 1) * width // BITS] = 255 * (number >> bit & 1)


def read_number(image: NDArray[np.uint8]) -> int:
    height, width = image.shape[:2]
    bars = [image[:height // 14, bit * width // BITS + width // 64:(bit + 1) * width // BITS - width // 64]
            for bit in range(BITS)]
    return sum((float(bar.mean()) > 127) << bit for bit, bar in enumerate(bars))


class Reader(NullSink):
    """Reads the numbers back and records when each frame was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []
        """(number, time) of each frame shown."""

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.seen.append((read_number(image), time.perf_counter()))


def run(options: Options, progress: Progress) -> Report:
    cases: tuple[tuple[int, int, int, int, bool], ...] = DEVICE_CASES if dreams_on_gpu(options) else CASES
    if options.width and options.height:
        cases = ((options.width, options.height, options.rate or 30, options.field_height or options.height, False),)
    seconds, rows, backend = options.seconds or DEFAULT_SECONDS, [], ""
    for width, height, rate, field_height, fixed in cases:
        progress(f"{width}x{height} at {rate}/s for {seconds:g} s")
        rows.append(measure(options, width, height, rate, field_height, fixed, seconds))
        backend = f"{rows[-1]['backend']} {rows[-1]['precision']}"
    return Report("live", conditions(seconds=seconds, backend=backend, min_dream_rate=options.min_dream_rate), rows)


def dreams_on_gpu(options: Options) -> bool:
    dreamer = build_dreamer(options, 0)
    return dreamer.backend.device.type == "cuda" and dreamer.on_device(live_settings(options))


def live_settings(options: Options) -> DreamSettings:
    return DreamSettings(**{**read_preset("live"), "layers": options.layers or LAYERS})


def build_dreamer(options: Options, field_height: int) -> Dreamer:
    return build.build_dreamer(StreamSettings(
        model=options.model, backend=options.backend, device=options.device, precision=options.precision,
        frame_path=options.frame_path, field_height=field_height, seed=options.seed))


def measure(options: Options, width: int, height: int, rate: int, field_height: int, fixed: bool, seconds: float
            ) -> dict[str, Any]:
    dreamer, settings = build_dreamer(options, field_height), live_settings(options)
    source, sink = Numbered(read_clip(options, width, height), rate, seconds), Reader()
    resolution = ResolutionController(field_height, options.min_dream_rate, fixed)
    live = Live(source, sink, dreamer, resolution, Controls(settings), drop_frames=options.frame_path == "device")
    freeze_gc()
    with MemoryMonitor() as memory, GpuMonitor(str(dreamer.backend.device)) as gpu:
        report = live.run()
    return {"source": f"{width}x{height}@{rate}", **summarize(source, sink, report), "rss_growth_mb": memory.growth_mb,
            "gpu_busy_percent": gpu.busy_percent, "fields": report.fields,
            "frame_path": "device" if dreamer.on_device(settings) else "processor", "reason": report.reason}


class MemoryMonitor:
    """Samples the resident memory of this process once per second."""

    def __enter__(self) -> Self:
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            self._samples.append(rss_mb())

    @property
    def growth_mb(self) -> float:
        """Growth from the third tenth of the time, after engines are built and caches are filled, to the last tenth."""
        tenth = max(1, len(self._samples) // 10)
        return median(self._samples[-tenth:] or [0.0]) - median(self._samples[2 * tenth:3 * tenth] or [0.0])


def summarize(source: Numbered, sink: Reader, report: LiveReport) -> dict[str, Any]:
    readable = [(number, shown_at) for number, shown_at in unwrapped(sink.seen) if number in source.due]
    latencies = sorted(shown_at - source.due[number] for number, shown_at in readable)
    gaps = [shown_at - last_shown_at for (_, last_shown_at), (_, shown_at) in pairwise(readable)]
    rates = report.as_json()
    return {
        "field": report.field, "shown_ratio": len({number for number, _ in readable}) / max(1, len(source.due)),
        "unreadable": len(sink.seen) - len(readable), "latency_p50_ms": 1e3 * latencies[len(latencies) // 2],
        "latency_p95_ms": 1e3 * latencies[int(0.95 * (len(latencies) - 1))],
        "longest_gap_ms": 1e3 * max(gaps, default=0.0), "jitter_ms": report.jitter_ms,
        "dreams_per_s": rates["dream_fps"], "steps_per_s": rates["steps_per_s"], "cpu_share": report.cpu_share,
        "peak_rss_mb": report.peak_rss_mb, "backend": report.backend, "precision": report.precision}


def unwrapped(seen: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Undo the overflow of the numbers in the pictures, after 18 minutes at 60 frames per second."""
    result, overflows, last = [], 0, 0
    for number, shown_at in seen:
        overflows += number < last - 2**(BITS - 1)
        last = number
        result.append((number + overflows * 2**BITS, shown_at))
    return result


def read_clip(options: Options, width: int, height: int) -> list[NDArray[np.uint8]]:
    """Return the first frames of the clip; of a drawn one where there is none, as the sample clip comes with gradio."""
    try:
        path = options.clip or str(sample_file(CLIP))
    except MissingPackage:
        return footage.animation(LOOP_FRAMES, height, width)
    with open_source(path) as source:
        frames = (frame.image for frame, _ in zip(source, range(LOOP_FRAMES), strict=False))
        return [cv2().resize(image, (width, height)) for image in frames]


def write_mjpeg(path: Path, images: Iterable[NDArray[np.uint8]]) -> Path:
    """Write pictures as JPEGs one behind the other, as cameras send them."""
    with path.open("wb") as file:
        for image in images:
            file.write(cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR),
                                      [cv2().IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return path
