"""Set the number of threads of PyTorch and of the engines that compute on the processor.

OpenCV's number stays as it is: its results do not depend on it (DIS and Farneback flow, remap, resize and blur).
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.settings import StreamSettings

_process_threads = 0
"""What ``set_process_threads`` was given last."""


@cache
def default_threads() -> int:
    """PyTorch's default, or OMP_NUM_THREADS; the first call must come before any change."""
    import torch

    return torch.get_num_threads()


def effective_threads(stream: StreamSettings) -> int:
    """The number of threads that a run with these settings computes on.

    As ``StreamSettings.threads`` it makes later runs use the same number, also where the default is another.
    """
    return stream.threads or default_threads()


def process_threads() -> int:
    """The number of threads that this process computes on; a live run may use fewer for a while."""
    return _process_threads or default_threads()


def set_process_threads(number: int) -> None:
    """Compute on ``number`` threads from now on, in this thread and in those that begin to compute later; 0 restores
    the default. Engines that were built before keep their number.
    """
    global _process_threads
    import torch

    default = default_threads()  # read before the change
    if number or _process_threads:  # else nobody has changed it, and what the program itself has set stays
        torch.set_num_threads(number or default)
    _process_threads = number


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Use ``number`` threads for the computations of this thread within the block."""
    import torch

    before = process_threads()  # read before the change
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)  # threads started later inherit the last value
