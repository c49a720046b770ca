"""What every sink is: it takes pictures in order, then finishes or aborts."""
from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.media.frame import Frame


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
