"""What replicas that share a folder tell each other of their live dreams: each writes a file of its own each second."""
from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .replica import Replica

FRESH_SECONDS = 3.0
"""A replica whose file has not changed for that long is not counted on."""


@dataclass(frozen=True)
class ReplicaLoad:
    """``free`` is the number of live dreams that could begin at once; ``visitors`` are those who dream there, as
    ``visitor_cookie.visitor_of`` names them.
    """

    free: int = 0
    visitors: frozenset[str] = frozenset()


class ReplicaLoads:
    """The loads of the other replicas. ``exchange`` reads files and may block; all else does not. Thread-safe."""

    def __init__(self, replica: Replica, clock: Callable[[], float] = time.monotonic) -> None:
        self._replica, self._clock = replica, clock
        self._numbers = itertools.count()
        self._read: dict[str, tuple[str, float, ReplicaLoad]] = {}
        """By the name of a replica: the text of its file, since when it is the same, and what it says."""

    def exchange(self, own: ReplicaLoad) -> None:
        """Tell the others the load of this replica, and read theirs. Raises OSError."""
        text = json.dumps({"number": next(self._numbers), "free": own.free, "visitors": sorted(own.visitors)})
        path = self._replica.load_file
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        others = (other for other in path.parent.glob(f"*{path.suffix}") if other != path)
        self._read = {other.stem: found for other in others if (found := self._follow(other))}

    def _follow(self, path: Path) -> tuple[str, float, ReplicaLoad] | None:
        """By the clock of this machine: those of others may differ."""
        try:
            text = path.read_text(encoding="utf-8")
            if (known := self._read.get(path.stem)) and known[0] == text:
                return known
            values = json.loads(text)
            return text, self._clock(), ReplicaLoad(int(values["free"]), frozenset(map(str, values["visitors"])))
        except (OSError, ValueError, TypeError, KeyError):  # it has just ended, or is of another version
            return None

    def fresh(self) -> list[ReplicaLoad]:
        """Return the loads of the others that live."""
        now = self._clock()
        return [load for _, since, load in self._read.values() if now - since < FRESH_SECONDS]
