"""What every sink is: it takes pictures in order, then finishes or aborts."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.media.frame import Frame
from streamdream.settings import DreamSettings


class LiveControls(Protocol):
    """What the keys of a window change; ``automation.controls.Controls`` is one."""

    frozen: bool

    def current(self) -> DreamSettings: ...
    def change(self, values: Mapping[str, Any]) -> DreamSettings:
        """Raises UsageError for what is not legal; then nothing has changed."""

    def reset(self) -> None: ...


class Sink(Protocol):
    """Takes pictures in order. A context manager: finishes, or aborts when there was an error."""

    @property
    def warnings(self) -> list[str]:
        """What was lost on the way, a line each; complete after ``finish``."""

    @property
    def bytes_written(self) -> int:
        """What it takes on the disk so far."""

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        """``image`` [H, W, 3] RGB is shown at the time of ``frame``; it is copied.

        Raises SinkError, also for what was written before; then nothing is left behind, except of a live recording.
        """

    def finish(self) -> None:
        """Writes what waits and gives the output its name. Raises SinkError as ``write`` does."""

    def abort(self) -> None:
        """Stops and removes what was written; does nothing after ``finish`` or ``abort``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class SinkBase:
    """The context manager of all sinks: finishes, or aborts when there was an error."""

    def finish(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.finish()
        else:
            self.abort()


class NullSink(SinkBase):
    """Forgets everything; to measure the rest."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        pass

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


@dataclass(frozen=True)
class LiveContext:
    """What a live run lends its sinks. With it they never make the run wait."""

    controls: LiveControls
    """What keys play on."""
    layers: Callable[[], Sequence[str]] = tuple
    """Those that the keys step through, of the network of now."""
    failures: dict[str, str] = field(default_factory=dict)
    """Sinks that failed while others went on, by their names: why, and what is left of them."""
    kept: list[str] = field(default_factory=list)
    """Of recordings that were not finished, a line each: what there is, and where."""
