"""Set the number of PyTorch's threads."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@cache
def default_threads() -> int:
    """PyTorch's default, or OMP_NUM_THREADS; the first call must come before any change."""
    import torch

    return torch.get_num_threads()


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Use ``number`` threads for the computations of this thread within the block."""
    import torch

    default = default_threads()  # read before the change
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(default)  # threads started later inherit the last value
