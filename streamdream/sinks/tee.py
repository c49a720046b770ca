"""Several sinks at once, of which none holds up or brings down the others."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import Closed, StreamdreamError
from streamdream.frame import Frame

if TYPE_CHECKING:
    from streamdream.sinks import Sink

log = logging.getLogger(__name__)


class Tee:
    """Gives each picture to all of ``sinks``. A fault of the first ends the run; another that fails is left out from
    then on, and its fault is a warning. Each must be one that does not wait.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._first, self._others = sinks[0], list(sinks[1:])
        self._faults: list[str] = []
        self._all = list(sinks)

    @property
    def warnings(self) -> list[str]:
        return [warning for sink in self._all for warning in sink.warnings] + self._faults

    @property
    def bytes_written(self) -> int:
        return sum(sink.bytes_written for sink in self._all)

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        for sink in list(self._others):
            try:
                sink.write(image, frame)
            except Closed:
                raise
            except StreamdreamError as error:
                self._leave_out(sink, error)
        self._first.write(image, frame)

    def _leave_out(self, sink: Sink, error: StreamdreamError) -> None:
        self._others.remove(sink)
        self._faults.append(f"{error}; the others went on")
        log.warning("%s; the others go on", error)
        sink.abort()

    def finish(self) -> None:
        """All of them, whatever one of them says. Raises the first one's fault."""
        for sink in list(self._others):
            try:
                sink.finish()
            except StreamdreamError as error:
                self._leave_out(sink, error)
        self._first.finish()

    def abort(self) -> None:
        for sink in self._all:
            sink.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            return self.finish()
        with ExitStack() as stack:  # each hears of the fault, whatever the others make of it
            for sink in self._all:
                stack.callback(sink.__exit__, *error)
