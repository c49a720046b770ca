"""A live run on frames that carry their number: what of them is shown, how late, and how often the dream is renewed."""
from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream import pipeline
from streamdream.capture import LiveSource, stamped
from streamdream.controls import Controls
from streamdream.frame import Frame
from streamdream.governor import Governor
from streamdream.live import Live, LiveReport
from streamdream.opencv import cv2
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.sinks import NullSink
from streamdream.sources import open_source

from . import Options, Progress, Report, clips, conditions

CASES = ((1280, 720, 60, 240), (1920, 1080, 30, 240), (640, 480, 30, 480))
"""Width, height, frames a second, lines of the field at most."""
DEFAULT_SECONDS = 20.0
BITS = 16
LOOPED = 120
"""Frames of the clip that are shown over and over."""


class Numbered(LiveSource):
    """Frames of a clip, paced by the clock, each with its number as black and white bars along its upper edge."""

    def __init__(self, images: list[NDArray[np.uint8]], rate: int, seconds: float) -> None:
        super().__init__("numbered")
        self.height, self.width = images[0].shape[:2]
        self.rate = Fraction(rate)
        self._images, self._count = images, int(rate * seconds)
        self.due: dict[int, float] = {}

    def __iter__(self) -> Iterator[Frame]:
        began = time.perf_counter()
        for number in range(self._count):
            due = began + number / float(self.rate)
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            image = self._images[number % len(self._images)].copy()
            write_number(image, number)
            self.due[number] = due
            yield stamped(image, number / float(self.rate))


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
    """Reads the numbers back and notes when."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.seen.append((read_number(image), time.perf_counter()))


def run(options: Options, progress: Progress) -> Report:
    cases: tuple[tuple[int, int, int, int], ...] = CASES
    if options.width and options.height:
        cases = ((options.width, options.height, 30, options.field_height),)
    seconds, rows, backend = options.seconds or DEFAULT_SECONDS, [], ""
    for width, height, rate, field in cases:
        progress(f"{width}x{height} at {rate}/s for {seconds:g} s")
        rows.append(measure(options, width, height, rate, field, seconds))
        backend = f"{rows[-1]['backend']} {rows[-1]['precision']}"
    return Report("live", conditions(seconds=seconds, backend=backend, dream_hz=options.dream_hz), rows)


def measure(options: Options, width: int, height: int, rate: int, field: int, seconds: float) -> dict[str, Any]:
    settings = DreamSettings(layers=options.layers or DreamSettings.layers)
    dreamer = pipeline.build_dreamer(StreamSettings(
        model=options.model, backend=options.backend, device=options.device, precision=options.precision,
        field_height=field, seed=options.seed))
    dreamer.in_turn = True
    source, sink = Numbered(read_clip(options, width, height), rate, seconds), Reader()
    live = Live(source, sink, dreamer, Governor(field, options.dream_hz), Controls(settings))
    return {"source": f"{width}x{height}@{rate}", **summarize(source, sink, live.run())}


def summarize(source: Numbered, sink: Reader, report: LiveReport) -> dict[str, Any]:
    good = [(number, at) for number, at in sink.seen if number in source.due]
    late = sorted(at - source.due[number] for number, at in good)
    gaps = [after[1] - before[1] for before, after in pairwise(good)]
    facts = report.as_json()
    return {
        "field": report.field, "shown_ratio": len({number for number, _ in good}) / max(1, len(source.due)),
        "unreadable": len(sink.seen) - len(good), "latency_p50_ms": 1e3 * late[len(late) // 2],
        "latency_p95_ms": 1e3 * late[int(0.95 * (len(late) - 1))], "longest_gap_ms": 1e3 * max(gaps, default=0.0),
        "jitter_ms": report.jitter_ms, "dreams_per_s": facts["dream_fps"], "steps_per_s": facts["steps_per_s"],
        "cpu_share": report.cpu_share, "peak_rss_mb": report.peak_rss_mb, "backend": report.backend,
        "precision": report.precision}


def read_clip(options: Options, width: int, height: int) -> list[NDArray[np.uint8]]:
    with open_source(options.clip or clips.gradio_asset(clips.DEFAULT_CLIP)) as source:
        frames = (frame.image for frame, _ in zip(source, range(LOOPED), strict=False))
        return [cv2().resize(image, (width, height)) for image in frames]
