"""Several sinks at once, of which none holds up or brings down the others."""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import Closed, StreamdreamError
from streamdream.media.frame import Frame

if TYPE_CHECKING:
    from streamdream.media.sinks.base import Sink

log = logging.getLogger(__name__)


class Tee:
    """Gives each picture to all of ``sinks``. One that fails is finished as far as that goes and left out from then on;
    its fault is a warning, and is added to ``failures`` under its name. The fault of the last one ends the run. Each
    must be one that does not wait.
    """

    def __init__(self, sinks: Sequence[Sink], names: Sequence[str] = (),
                 failures: dict[str, str] | None = None) -> None:
        self._all, self._working = list(sinks), list(sinks)
        self._names = dict(zip(map(id, sinks), names, strict=False))
        self.failures: dict[str, str] = {} if failures is None else failures
        self._faults: list[str] = []

    @property
    def warnings(self) -> list[str]:
        return [warning for sink in self._all for warning in sink.warnings] + self._faults

    @property
    def bytes_written(self) -> int:
        return sum(sink.bytes_written for sink in self._all)

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        """Raises Closed, or what the last of them raises."""
        for sink in self._working[::-1]:  # the first one last, as it is what is looked at and may be closed
            try:
                sink.write(image, frame)
            except Closed:
                raise
            except StreamdreamError as error:
                self._drop_sink(sink, error)
                if not self._working:
                    raise
                self._faults.append(f"{error}; the others went on")
                log.warning("%s; the others go on", error)
                with contextlib.suppress(StreamdreamError):
                    sink.finish()
                sink.abort()

    def _drop_sink(self, sink: Sink, error: StreamdreamError) -> None:
        self._working.remove(sink)
        self.failures[self._names.get(id(sink), type(sink).__name__)] = str(error)

    def finish(self) -> None:
        """All of them, whatever one of them says; the run is over, so that a fault is only a warning."""
        for sink in list(self._working):
            try:
                sink.finish()
            except StreamdreamError as error:
                self._drop_sink(sink, error)
                self._faults.append(str(error))
                sink.abort()

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
