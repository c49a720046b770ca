"""How busy a GPU is, by NVIDIA's management library."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

SAMPLE_SECONDS = 0.25


class GpuMonitor:
    """Samples the share of the time in which the GPU runs something, while its block runs.

    ``device`` is a PyTorch device, such as ``cuda:0``; of others, and without the package nvidia-ml-py,
    ``busy_percent`` is None.
    """

    def __init__(self, device: str) -> None:
        self._read, self._samples = _reader(device), list[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="streamdream-gpu-monitor", daemon=True)

    def __enter__(self) -> Self:
        if self._read is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def busy_percent(self) -> float | None:
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        assert self._read is not None
        while not self._stop.wait(SAMPLE_SECONDS):
            self._samples.append(self._read())


def _reader(device: str) -> Callable[[], int] | None:
    if not device.startswith("cuda"):
        return None
    import torch

    utilization: Any = torch.cuda.utilization
    try:
        utilization(device)
    except Exception:  # the package, the library or the permission is missing, each with another type
        return None
    return lambda: int(utilization(device))
