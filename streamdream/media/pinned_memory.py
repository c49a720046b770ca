"""Copies between arrays and a GPU that wait for nothing: from and to page-locked memory, on streams of their own.

PyTorch caches page-locked memory. A block that is freed is used again only when all copies that it took part in are
done (``aten/src/ATen/core/CachingHostAllocator.h``, Note [HostAllocator design]), so an array of ``Download.result``
is valid as long as somebody holds it, and any number of frames may be in flight, from any threads. Blocks have sizes of
powers of two; to make one takes milliseconds, to take one from the cache microseconds.

On other devices these are plain conversions.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 256
"""Bytes, as GPUs read whole lines of their memory."""


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array of any shape to a device. What this thread's current stream does from now on waits for the copy;
    the host does not. The array may change when this returns.
    """
    return upload_all([array], device)[0]


def upload_all(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Copy several arrays in one piece; the tensors share memory on the device. Else as ``upload``."""
    offsets = [0]
    for array in arrays:
        offsets.append(offsets[-1] + math.ceil(array.nbytes / ALIGNMENT) * ALIGNMENT)
    buffer = torch.empty(offsets[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for array, tensor in zip(arrays, _views(buffer, arrays, offsets), strict=True):
        tensor.numpy()[...] = array
    return _views(_to_device(buffer, device), arrays, offsets)


def _views(buffer: Tensor, arrays: Sequence[NDArray[Any]], offsets: Sequence[int]) -> list[Tensor]:
    return [buffer[start:start + array.nbytes].view(_torch_dtype(array.dtype)).view(array.shape)
            for start, array in zip(offsets, arrays, strict=False)]


def _to_device(buffer: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return buffer.to(device)
    own, current = _stream("upload", device), torch.cuda.current_stream(device)
    with torch.cuda.stream(own):
        result = buffer.to(device, non_blocking=True)
    current.wait_stream(own)
    result.record_stream(current)  # its memory belongs to the other stream, which must not use it again too early
    return result


class Download:
    """A tensor on its way to the host.

    The copy begins when the work is done that this thread's current stream has now, and goes on beside later work, so
    the tensor must not be written to before ``result``: clone the output of a CUDA graph that is replayed into the same
    memory.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach().contiguous()
        self._reads: Tensor | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._reads = tensor  # held, so that its memory is not used again before it is read
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        own, event = _stream("download", tensor.device), cast("Any", torch.cuda.Event)
        own.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(own):
            self._host.copy_(tensor, non_blocking=True)
            self._done = event(blocking=True)  # lets a thread that waits sleep: others need its core
            self._done.record(own)

    def result(self) -> NDArray[Any]:
        """Wait for this copy only, and return the array, in page-locked memory. It may be kept."""
        if self._reads is not None:
            self._done.synchronize()
            self._reads = None
        array: NDArray[Any] = self._host.numpy()
        return array


def _stream(purpose: str, device: torch.device) -> Any:
    """The stream for copies in one direction: a GPU makes them beside those in the other one and its own work."""
    return _streams(purpose, torch.cuda.current_device() if device.index is None else device.index)


@cache
def _streams(purpose: str, index: int) -> Any:
    stream: Any = torch.cuda.Stream
    return stream(torch.device("cuda", index))


@cache
def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
