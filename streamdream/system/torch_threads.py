"""How many threads PyTorch computes with."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@cache
def default_threads() -> int:
    """PyTorch's own choice, or what OMP_NUM_THREADS says; asked for before anything changes it."""
    import torch

    return torch.get_num_threads()


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """So many threads for what this one computes meanwhile."""
    import torch

    all_of_them = default_threads()  # asked for before it is changed
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(all_of_them)  # threads that begin later take on what was set last
