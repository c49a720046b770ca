"""Check composing and copies on a device, and time them: python -m streamdream_bench.device_check cuda

One JSON object a line: ``{"check", "passed", ...figures}``; exit 1 if one fails. Each is short, as time on a borrowed
GPU is. On a processor it only shows that all of it runs.
"""
from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.device_compose import compose_rgb
from streamdream.media.device_picture import PlaneLayout, compose_on_device, compose_samples
from streamdream.media.pinned_memory import Download, upload, upload_flat
from streamdream.media.planes import component_views

Row = dict[str, Any]
SIZE, SMALL_SIZE = (1080, 1920), (108, 192)
THREADS, FRAMES, IN_FLIGHT, KEPT = 4, 40, 3, 8


def run(device: torch.device, size: tuple[int, int] = SIZE, repeats: int = 30) -> Iterator[Row]:
    """Yield a row for each check."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    residual = random.normal(0, 0.2, (size[0] * 2 // 9, size[1] * 2 // 9, 3)).astype(np.float32)
    planes = upload(residual, device).permute(2, 0, 1)[None].contiguous()
    yield rgb(device, image, residual, planes)
    for name in ("yuv420p", "yuv420p10le", "yuv444p16le", "gbrp"):
        yield picture(name, image, residual, planes)
    yield threads(device, size)
    yield from times(device, image, residual, planes, repeats)


def rgb(device: torch.device, image: NDArray[np.uint8], residual: NDArray[np.float32], planes: Tensor) -> Row:
    """Compare with the processor's path, as it is and as a CUDA graph."""
    strength, sent = torch.full((1, 1, 1, 1), 0.7, device=device), upload(image[None], device)
    work = _replayed(partial(compose_rgb, sent, planes, strength), device)
    row = _difference("rgb", Download(work()).result()[0], compose_image(image, residual, 0.7))
    strength.zero_()
    unchanged = np.array_equal(Download(work()).result()[0], image)
    return {**row, "unchanged_at_0": unchanged, "passed": row["passed"] and unchanged}


def picture(name: str, image: NDArray[np.uint8], residual: NDArray[np.float32], planes: Tensor) -> Row:
    import av

    frame: Any = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=name)
    actual, expected = (np.concatenate([view.ravel() for view in component_views(result)]) for result in
                        (compose_on_device(frame, planes, 0.7).result(), compose_picture(frame, residual, 0.7)))
    same = compose_on_device(frame, planes, 0.0).result()
    unchanged = all(map(np.array_equal, component_views(same), component_views(frame)))
    row = _difference(name, actual, expected, int(frame.format.components[0].bits))
    return {**row, "unchanged_at_0": unchanged, "passed": row["passed"] and unchanged}


def threads(device: torch.device, size: tuple[int, int]) -> Row:
    """Frames of several threads in flight, behind long work; arrays are compared again after others have been made."""
    wrong: list[int] = []

    def dream(number: int) -> None:
        random = np.random.default_rng(number)
        waiting: list[tuple[NDArray[Any], Download]] = []
        kept: list[tuple[NDArray[Any], NDArray[Any]]] = []
        heavy = torch.ones(512, 512, device=device)
        for _ in range(FRAMES):
            array = random.integers(0, 128, (*size, 3), dtype=np.uint8)
            expected = array + 1
            sent = upload(array, device)
            array[:] = 0
            heavy = heavy @ heavy * (1 / 512)
            waiting.append((expected, Download(sent + 1)))
            del sent
            if len(waiting) == IN_FLIGHT:
                expected, download = waiting.pop(0)
                kept = [*kept[1 - KEPT:], (expected, download.result())]
                wrong.extend(number for wanted, got in (kept[0], kept[-1]) if not np.array_equal(wanted, got))

    workers = [threading.Thread(target=dream, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"check": "frames in flight", "threads": THREADS, "frames": THREADS * FRAMES, "wrong": len(wrong),
            "passed": not wrong}


def times(device: torch.device, image: NDArray[np.uint8], residual: NDArray[np.float32], planes: Tensor,
          repeats: int) -> Iterator[Row]:
    """Yield times of the parts, of all in turn, and of two in flight."""
    import av

    strength, sent = torch.full((1, 1, 1, 1), 0.7, device=device), upload(image[None], device)
    frame: Any = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
    layout, views = PlaneLayout.of(frame, planes), component_views(frame)[:3]
    samples = upload_flat(views, device)
    dream = _replayed(partial(compose_rgb, sent, planes, strength), device)
    file = _replayed(partial(compose_samples, layout, samples, planes, strength), device)
    parts: dict[str, Callable[[], Any]] = {
        "rgb up": lambda: upload(image, device), "rgb composed": dream,
        "rgb composed, no graph": partial(compose_rgb, sent, planes, strength),
        "rgb down": lambda: Download(sent).result(),
        "yuv420p up": lambda: upload_flat(views, device), "yuv420p composed": file,
        "yuv420p composed, no graph": partial(compose_samples, layout, samples, planes, strength),
        "yuv420p, whole": lambda: compose_on_device(frame, planes, 0.7).result(),
        "yuv420p, processor": lambda: compose_picture(frame, residual, 0.7),
    }
    for name, part in parts.items():
        yield {"check": name, "ms": round(_milliseconds(part, device, repeats), 3), "passed": True}
    pending = [compose_on_device(frame, planes, 0.7)]

    def overlapped() -> None:
        pending.append(compose_on_device(frame, planes, 0.7))
        pending.pop(0).result()

    milliseconds = _milliseconds(overlapped, device, repeats)
    yield {"check": "yuv420p, two in flight", "ms": round(milliseconds, 3), "passed": True}


def _difference(name: str, actual: NDArray[Any], expected: NDArray[Any], bits: int = 8) -> Row:
    difference = np.abs(actual.astype(np.int32) - expected.astype(np.int32))
    largest, share = int(difference.max()), float((difference > 0).mean())
    return {"check": name, "largest_difference": largest, "share_changed": round(share, 6),
            "passed": largest <= max(1, 2 ** (bits - 12)) and share <= 1e-3 * 2 ** (bits - 8)}


def _replayed(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Return the work as a CUDA graph, where the device has those."""
    if device.type != "cuda":
        return work
    torch.cuda.synchronize()
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        work()
    torch.cuda.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()

    def replay() -> Tensor:
        graph.replay()
        return output.clone()

    return replay


def _milliseconds(work: Callable[[], Any], device: torch.device, count: int) -> float:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds)


def main(arguments: list[str]) -> int:
    device = torch.device(arguments[0] if arguments else "cpu")
    passed = True
    for row in run(device, SIZE if device.type == "cuda" else SMALL_SIZE):
        passed &= row["passed"]
        sys.stdout.write(json.dumps(row) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
