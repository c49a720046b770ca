"""Tensors that are made once: a blur's kernels, the numbers of channels."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Made = TypeVar("Made")
CACHE_SIZE = 64
_used: ContextVar[list[Any] | None] = ContextVar("_used", default=None)


def cached_tensor(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Remembers what was made of which arguments, of the last ``KEPT``."""
    remembered = lru_cache(maxsize=CACHE_SIZE)(make)

    @wraps(make)
    def look_up(*given: Given.args, **named: Given.kwargs) -> Made:
        found: Made = remembered(*given, **named)  # type: ignore[arg-type]
        note_use(found)
        return found

    return look_up


def note_use(thing: Any) -> None:
    """Tell ``noticed``, if this thread is within it, that ``thing`` is used."""
    used = _used.get()
    if used is not None:
        used.append(thing)


@contextmanager
def record_uses() -> Iterator[list[Any]]:
    """What is used within it, in this thread: whoever has only its address keeps it so from being forgotten."""
    used: list[Any] = []
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)
