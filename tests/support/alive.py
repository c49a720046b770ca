"""What is still there of the objects that a test made; ``gc.get_objects`` does not show those that are frozen."""
from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from weakref import WeakSet


@contextmanager
def tracked(*kinds: type) -> Iterator[Callable[[], list[str]]]:
    """Gives a function: the names of the kinds of all objects made within the ``with`` that are alive, after a
    collection.
    """
    made: WeakSet[Any] = WeakSet()

    def track(kind: type) -> Any:
        original: Callable[..., None] = vars(kind)["__init__"]

        def begin(self: Any, *arguments: Any, **named: Any) -> None:
            made.add(self)
            original(self, *arguments, **named)

        return mock.patch.object(kind, "__init__", begin)

    def alive() -> list[str]:
        gc.collect()
        return sorted(type(found).__name__ for found in made)

    patches = [track(kind) for kind in kinds]
    for patch in patches:
        patch.start()
    try:
        yield alive
    finally:
        for patch in patches:
            patch.stop()
