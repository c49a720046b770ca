"""Constant tensors that are made once: a blur's kernels, indices of channels."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")
CACHE_SIZE = 64
_used: ContextVar[dict[Any, Any] | None] = ContextVar("_used", default=None)


def cached_tensor(make: Callable[Params, Result], size: int = CACHE_SIZE) -> Callable[Params, Result]:
    """Cache the results of a function, ``size`` of them, the least recently used evicted; none of those that were
    looked up within ``record_uses``, until its end.
    """
    cached = lru_cache(maxsize=size)(make)

    @wraps(make)
    def look_up(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        used, key = _used.get(), (make, args, tuple(kwargs.items()))
        if used is not None and key in used:
            held: Result = used[key]
            return held
        result: Result = cached(*args, **kwargs)  # type: ignore[arg-type]
        if used is not None:
            used[key] = result
        return result

    return look_up


def note_use(resource: Any) -> None:
    """Record a use, where this thread is within ``record_uses``."""
    used = _used.get()
    if used is not None:
        used[id(resource)] = resource


@contextmanager
def record_uses() -> Iterator[dict[Any, Any]]:
    """What is used within it, in this thread. A CUDA graph has only addresses, so it holds these references."""
    used: dict[Any, Any] = {}
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)
