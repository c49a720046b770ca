"""Engines that give their memory back while nobody uses them.

A live field that finds its size leaves engines behind, of every octave of every size that it passed through, and each
takes 80 to 250 MB on a processor. What is kept in the cache is loaded again in a fifth of a second when it is wanted.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.backends.engine import Engine

IDLE_SECONDS = 30.0
"""How long an engine stays in memory unused: longer than whoever has octaves or sessions in turn takes to come back."""


class Pool:
    """The engines of one backend that can be loaded again, in memory or not. Threads may add to it at any time."""

    def __init__(self) -> None:
        self._engines: WeakSet[Resting] = WeakSet()
        self._lock = threading.Lock()

    def add(self, engine: Resting) -> None:
        with self._lock:
            self._engines.add(engine)

    def all(self) -> list[Resting]:
        with self._lock:
            return list(self._engines)


class Resting:
    """An engine; ``again`` loads it when it is wanted after it was put away. ``others`` share its memory, so a call of
    any of them puts those away that have had nothing to do.
    """

    def __init__(self, engine: Engine, again: Callable[[], Engine], others: Pool) -> None:
        self._engine: Engine | None = engine
        self._again, self._others = again, others
        self._used_seconds = time.monotonic()
        others.add(self)

    def __call__(self, *arguments: Tensor) -> Tensor:
        self._used_seconds = time.monotonic()
        engine = self._engine
        if engine is None:
            engine = self._engine = self._again()
        for other in self._others.all():
            other.rest(self._used_seconds - IDLE_SECONDS)
        return engine(*arguments)

    @property
    def awake(self) -> bool:
        """Whether it is in memory."""
        return self._engine is not None

    def rest(self, since_seconds: float) -> None:
        """Gives its memory back if it was not used since, on ``time.monotonic``; a call that is under way goes on."""
        if self._used_seconds < since_seconds:
            self._engine = None
