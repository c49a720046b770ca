"""Copies between arrays and a GPU that wait for nothing: from and to page-locked memory, on streams of their own.

PyTorch caches page-locked ("pinned") memory. A block that is freed is used again only when all copies that it took part
in are done (``aten/src/ATen/core/CachingHostAllocator.h``, Note [HostAllocator design]), so an array of a ``Download``
is valid as long as somebody holds it, and any number of frames may be in flight, from any threads. Blocks have sizes of
powers of two; to make one takes milliseconds, to take one from the cache microseconds.

On other devices these are plain copies.
"""
from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 256
"""Bytes between the beginnings of tensors that share memory, as of PyTorch's own at the least."""
_constants: dict[tuple[int, torch.device], Tensor] = {}


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array of any shape to a device. What this thread's current stream does from now on waits for the copy;
    the host does not. The array may change when this returns.
    """
    return upload_flat([array], device).view(array.shape)


def upload_flat(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """Copy arrays of one dtype, one behind the other, in one piece: a tensor of one dimension. Else as ``upload``."""
    buffer, first = _host_memory((sum(array.size for array in arrays),), torch_dtype(arrays[0].dtype), device), 0
    for array in arrays:
        buffer[first:first + array.size].view(array.shape).numpy()[...] = array
        first += array.size
    return _to_device(buffer, device)


def upload_all(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Copy arrays of any dtypes in one piece; the tensors share memory on the device. Else as ``upload``."""
    starts = packed_starts(arrays)
    buffer = _host_memory((starts[-1],), torch.uint8, device)
    for array, view in zip(arrays, _views(buffer, arrays, starts), strict=True):
        view.numpy()[...] = array
    return _views(_to_device(buffer, device), arrays, starts)


def packed_starts(arrays: Sequence[NDArray[Any]]) -> list[int]:
    """Return where ``upload_packed`` puts each array, in bytes, and the size of all."""
    starts = [0]
    for array in arrays:
        starts.append(starts[-1] + math.ceil(array.nbytes / ALIGNMENT) * ALIGNMENT)
    return starts


def upload_packed(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """Copy arrays of any dtypes in one piece, on this thread's current stream: bytes [N], see ``packed_starts``.

    By few calls of PyTorch: each releases the GIL, for which the threads of many sessions wait.
    """
    starts = packed_starts(arrays)
    buffer = _host_memory((starts[-1],), torch.uint8, device)
    host = buffer.numpy()
    for array, start in zip(arrays, starts, strict=False):
        host[start:start + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
    return buffer.to(device, non_blocking=True)


def _views(buffer: Tensor, arrays: Sequence[NDArray[Any]], starts: Sequence[int]) -> list[Tensor]:
    return [buffer[start:start + array.nbytes].view(torch_dtype(array.dtype)).view(array.shape)
            for start, array in zip(starts, arrays, strict=False)]


def upload_constant(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array that nobody changes, once: the same tensor as long as the array lives. The first call waits, so
    that any stream may use it.
    """
    key = id(array), device
    if key not in _constants:
        _constants[key] = torch.tensor(array, device=device)
        weakref.finalize(array, _constants.pop, key, None).atexit = False
    return _constants[key]


class Download:
    """A tensor on its way to the host.

    The copy begins when the work is done that this thread's current stream has now, and goes on beside later work, so
    the tensor must not be written to before ``result``: clone what a CUDA graph writes to the same memory again. With
    ``beside`` False it does not begin later work before it, and takes fewer calls.
    """

    def __init__(self, tensor: Tensor, beside: bool = True) -> None:
        tensor = tensor.detach().contiguous()
        self._reads: Tensor | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.to("cpu", copy=True)
            return
        self._reads = tensor  # held, so that its memory is not used again before it is read
        self._host = _host_memory(tensor.shape, tensor.dtype, tensor.device)
        event = cast("Any", torch.cuda.Event)
        if not beside:
            self._host.copy_(tensor, non_blocking=True)
            self._done = event(blocking=True)
            self._done.record(torch.cuda.current_stream(tensor.device))
            return
        own = _stream("download", tensor.device)
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


def _host_memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _to_device(buffer: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return buffer.to(device)
    own, current = _stream("upload", device), torch.cuda.current_stream(device)
    with torch.cuda.stream(own):
        result = buffer.to(device, non_blocking=True)
    current.wait_stream(own)
    result.record_stream(current)  # its memory belongs to the other stream, which must not use it again too early
    return result


def _stream(purpose: str, device: torch.device) -> Any:
    """The stream for copies in one direction: a GPU makes them beside those in the other one and its own work."""
    return _streams(purpose, torch.cuda.current_device() if device.index is None else device.index)


@cache
def _streams(purpose: str, index: int) -> Any:
    stream: Any = torch.cuda.Stream
    return stream(torch.device("cuda", index))


@cache
def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
