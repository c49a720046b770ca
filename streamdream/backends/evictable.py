"""Engines in memory, which the budget may evict while nobody uses them.

A live field that finds its size leaves engines behind, of every octave of every size that it passed through, and each
takes 50 to 250 MB on a processor. What is stored in the cache folder is loaded again in a fifth of a second.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from streamdream.system.memory import Budget, Slot

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoadedEngine:
    """An engine in memory; ``run`` is one, see ``engine.Engine``.

    ``stored`` says that it is in the cache folder too, so that it is soon loaded again.
    """

    run: Callable[..., Tensor]
    nbytes: int
    stored: bool = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        return self.run(*arguments)


class EvictableEngine:
    """An engine; ``reload`` gets the arguments of a call that comes after it was evicted.

    One that is stored is also evicted when nobody has used it for a while.
    """

    def __init__(self, engine: LoadedEngine, reload: Callable[..., LoadedEngine], budget: Budget) -> None:
        self._reload = reload
        self._slot = Slot(budget, attrgetter("nbytes"), None if engine.stored else math.inf, engine)

    def __call__(self, *arguments: Tensor) -> Tensor:
        with self._slot.use(lambda: self._reload(*arguments)) as engine:
            return engine(*arguments)

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._slot.loaded
