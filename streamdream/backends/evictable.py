"""Engines in memory that the budget may evict while they are idle.

While a live run adapts its field, it uses an engine per octave and size, each of 50 to 250 MB on a processor. To load a
stored one again takes 0.2 s.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from streamdream.system.memory import Budget, CacheEntry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoadedEngine:
    """An ``engine.Engine`` in memory with its size; ``stored`` if it is also in the cache folder."""

    run: Callable[..., Tensor]
    nbytes: int
    stored: bool = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        return self.run(*arguments)


class EvictableEngine:
    """An engine that may be evicted; the next call then passes its arguments to ``reload``.

    A stored engine is also evicted after some time without use.
    """

    def __init__(self, engine: LoadedEngine, reload: Callable[..., LoadedEngine], budget: Budget) -> None:
        self._reload = reload
        self._entry = CacheEntry(budget, attrgetter("nbytes"), None if engine.stored else math.inf, engine)

    def __call__(self, *arguments: Tensor) -> Tensor:
        with self._entry.use(lambda: self._reload(*arguments)) as engine:
            return engine(*arguments)

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self._entry.loaded
