"""Measure a whole frame: its stages, all of it as one function, and frames in flight, on the device and beside it.

    match, advance (warp and ascend), compose    each by itself, as the backend runs a function
    frame                                        all of it as one function
    submitted                                    ``Dreamer.submit``, with uploads and downloads, IN_FLIGHT at a time

The path ``processor`` is that of ``Dreamer.advance``, which leaves the device only the steps.
"""
from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from streamdream.backends import synchronize
from streamdream.dream.build import build_dreamer
from streamdream.media import device_compose
from streamdream.media.frame import Frame
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.system.stats import Stats, percentile

from . import LAYERS, Options, Progress, Report, conditions
from .frame_program import FLOW, Case, FrameProgram, cases
from .live import read_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from streamdream.dream.dreamer import Dreamer

DEFAULT_FRAMES = 60
IN_FLIGHT = 2
WARMUP_FRAMES = 5
"""Frames before those measured: kernels are chosen, graphs captured."""
PATHS = ("device", "processor")


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each case and path, in turn."""
    settings, frames = DreamSettings(layers=options.layers or LAYERS), options.frames or DEFAULT_FRAMES
    rows, device = [], ""
    for case in cases(options):
        images = read_clip(options, case.width, case.height)
        for path in PATHS if options.frame_path == "auto" else options.frame_path.split(","):
            progress(f"{case.width}x{case.height}, {case.field[0]} lines, {path}")
            dreamer = build_dreamer(StreamSettings(
                model=options.model, field_height=case.lines, backend=options.backend, device=options.device,
                precision=options.precision, seed=options.seed, frame_path=path))
            device = str(dreamer.backend.device)
            row: dict[str, Any] = {**case.columns(), "path": path, "backend": dreamer.backend.name,
                   "precision": dreamer.backend.precision}
            if path == "device":
                row |= measure_function(dreamer, settings, case, frames)
            rows.append(row | measure_submitted(dreamer, replace(settings, flow=FLOW) if path == "device" else settings,
                                                images, frames, row.get("frame_ms", 0.0)))
    return Report("frame", conditions(device=device, frames=frames, layers=settings.layers, in_flight=IN_FLIGHT), rows)


def measure_function(dreamer: Dreamer, settings: DreamSettings, case: Case, frames: int) -> dict[str, Any]:
    """Return the times of the frame function and of its parts, and what it does on the device."""
    device = dreamer.backend.device
    made = FrameProgram.of(dreamer.model, dreamer.backend, settings, case)
    compose = _compiled(dreamer, device_compose.compose_rgb)
    matched = made.match()
    work: dict[str, Callable[[], object]] = {
        "match": made.match, "advance": lambda: made.advance(matched),
        "compose": lambda: compose(made.image, made.state.residual), "frame": made.whole}
    times = {f"{name}_ms": round(1e3 * _seconds(task, device, frames), 3) for name, task in work.items()}
    return {**times, "bytes_up": made.bytes_up, "bytes_down": made.bytes_down, **_on_gpu(made.whole, device)}


def _compiled(dreamer: Dreamer, work: Callable[..., Any]) -> Callable[..., Any]:
    backend: Any = dreamer.backend
    run: Callable[..., Any] = backend.compile_function(work)
    return run


def _seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of ``work``: on a GPU between two events, so that it is the device's own."""
    for _ in range(WARMUP_FRAMES):
        work()
    synchronize(device)
    if device.type != "cuda":
        durations = []
        for _ in range(repeats):
            started_at = time.perf_counter()
            work()
            durations.append(time.perf_counter() - started_at)
        return median(durations)
    event: Any = torch.cuda.Event
    pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in pairs:
        begin.record()
        work()
        end.record()
    synchronize(device)
    return float(median(begin.elapsed_time(end) for begin, end in pairs)) / 1e3


def _on_gpu(work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Return how many kernels a call runs, by how many launches, and how often it waits for the GPU."""
    if device.type != "cuda":
        return {}
    from torch.profiler import ProfilerActivity, profile

    waits = {"host_waits": _count_waits(work)}
    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            work()
            synchronize(device)
    except RuntimeError:  # a machine may forbid to count
        return waits
    events = profiler.events() or []
    kernels = [event for event in events if event.device_type.name == "CUDA"
               and not event.name.startswith(("Memcpy", "Memset"))]
    launches = [event for event in events if "LaunchKernel" in event.name or event.name == "cudaGraphLaunch"]
    kernel_us = sum(event.time_range.elapsed_us() for event in kernels)
    return {"kernels": len(kernels), "kernel_ms": round(kernel_us / 1e3, 3), "launches": len(launches),
            "graph_launches": sum(event.name == "cudaGraphLaunch" for event in launches), **waits}


def _count_waits(work: Callable[[], object]) -> int:
    """Count the calls within ``work`` that make the host wait for the GPU."""
    mode: Any = torch.cuda.set_sync_debug_mode
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mode("warn")
        try:
            work()
        finally:
            mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def measure_submitted(dreamer: Dreamer, settings: DreamSettings, images: Sequence[NDArray[np.uint8]], frames: int,
                      frame_ms: float) -> dict[str, Any]:
    """Return the rate of submitted frames, and the time of one that is waited for."""
    from streamdream.dream.dreamer import DreamState

    state, stats, device = DreamState(), Stats(), dreamer.backend.device
    options = replace(dreamer.options, cut_on_device=True)
    shown: deque[Any] = deque()
    pictures = cycle(images)

    def submit(count: int, in_flight: int) -> list[float]:
        nonlocal state
        durations = []
        for image in islice(pictures, count):
            started_at = time.perf_counter()
            state, dream = dreamer.submit(state, Frame(image, 0.0), settings, None, None, options)
            shown.append(dream)
            while len(shown) >= in_flight:
                shown.popleft().result()
            durations.append(time.perf_counter() - started_at)
        while shown:
            shown.popleft().result()
        return durations

    submit(WARMUP_FRAMES, 1)
    options = replace(options, stats=stats)
    started_at = time.perf_counter()
    submit(frames, IN_FLIGHT)
    fps = frames / (time.perf_counter() - started_at)
    waited = submit(frames, 1)
    row: dict[str, Any] = {"fps": round(fps, 2), "waited_ms_p50": round(1e3 * percentile(waited, 0.5), 3),
                           "waited_ms_p95": round(1e3 * percentile(waited, 0.95), 3), "stages": stats.stages()}
    if frame_ms and device.type == "cuda":
        row["busy_ratio"] = round(frame_ms * fps / 1e3, 3)
    if device.type == "cuda":
        row["host_waits_of_submit"] = _count_waits(lambda: submit_once(dreamer, state, images[0], settings, options))
    return row


def submit_once(dreamer: Dreamer, state: Any, image: NDArray[np.uint8], settings: DreamSettings, options: Any) -> Any:
    return dreamer.submit(state, Frame(image, 0.0), settings, None, None, options)
