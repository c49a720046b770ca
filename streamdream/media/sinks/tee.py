"""Write to several sinks; none blocks or ends the others."""
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
    """Pass each picture to all of ``sinks``. A sink that fails is finished as far as possible and dropped; its error
    becomes a warning, and is added to ``failures`` under its name. The error of the last sink ends the run. No sink
    may block.
    """

    def __init__(self, sinks: Sequence[Sink], names: Sequence[str] = (),
                 failures: dict[str, str] | None = None) -> None:
        self._all, self._working = list(sinks), list(sinks)
        self._names = dict(zip(map(id, sinks), names, strict=False))
        self.failures: dict[str, str] = {} if failures is None else failures
        self._errors: list[str] = []

    @property
    def warnings(self) -> list[str]:
        return [warning for sink in self._all for warning in sink.warnings] + self._errors

    @property
    def bytes_written(self) -> int:
        return sum(sink.bytes_written for sink in self._all)

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        """Raises Closed, or the error of the last sink."""
        for sink in self._working[::-1]:  # the first one last: it may be a window that is closed
            try:
                sink.write(image, frame)
            except Closed:
                raise
            except StreamdreamError as error:
                self._drop_sink(sink, error)
                if not self._working:
                    raise
                self._errors.append(f"{error}; the others went on")
                log.warning("%s; the others go on", error)
                with contextlib.suppress(StreamdreamError):
                    sink.finish()
                sink.abort()

    def _drop_sink(self, sink: Sink, error: StreamdreamError) -> None:
        self._working.remove(sink)
        self.failures[self._names.get(id(sink), type(sink).__name__)] = str(error)

    def finish(self) -> None:
        """Finish all sinks; an error is only a warning, since the run is over."""
        for sink in list(self._working):
            try:
                sink.finish()
            except StreamdreamError as error:
                self._drop_sink(sink, error)
                self._errors.append(str(error))
                sink.abort()

    def abort(self) -> None:
        for sink in self._all:
            sink.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            return self.finish()
        with ExitStack() as stack:  # each sink gets the error, whatever the others raise
            for sink in self._all:
                stack.callback(sink.__exit__, *error)
