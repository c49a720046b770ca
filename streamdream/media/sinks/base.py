"""The interface of sinks: take pictures in order, then finish or abort."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from streamdream.media.frame import Frame, Picture
from streamdream.settings import DreamSettings


class LiveControls(Protocol):
    """The settings that the keys of a window change, such as ``automation.controls.Controls``."""

    frozen: bool

    def current(self) -> DreamSettings: ...
    def change(self, values: Mapping[str, Any]) -> DreamSettings:
        """Change settings. Raises UsageError for an illegal value; then none has changed."""

    def reset(self) -> None: ...


class Sink(Protocol):
    """Take pictures in order. As a context manager: finish, or abort after an error."""

    @property
    def warnings(self) -> list[str]:
        """One line for each loss; complete after ``finish``."""

    @property
    def bytes_written(self) -> int:
        """Size on the disk so far."""

    def write(self, image: Picture, frame: Frame) -> None:
        """Write ``image`` at the time of ``frame``: uint8 [H, W, 3] RGB, which is copied, or a planar PyAV frame.

        Raises SinkError, also for earlier writes; then the output is removed, unless it is a live recording.
        """

    def finish(self) -> None:
        """Write the queue and give the output its name. Raises SinkError as ``write`` does."""

    def abort(self) -> None:
        """Stop and remove the output; does nothing after ``finish`` or ``abort``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class SinkBase(ABC):
    """The context manager of all sinks: finish, or abort after an error."""

    @abstractmethod
    def finish(self) -> None:
        """See ``Sink``."""

    @abstractmethod
    def abort(self) -> None:
        """See ``Sink``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.finish()
        else:
            self.abort()


class NullSink(SinkBase):
    """Discard all pictures, for measurements."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0

    def write(self, image: Picture, frame: Frame) -> None:
        pass

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


@dataclass(frozen=True)
class LiveContext:
    """Passed by a live run to its sinks; a sink that has it never makes the run wait."""

    controls: LiveControls
    """The settings that keys change."""
    layers: Callable[[], Sequence[str]] = tuple
    """The layers of the current network, which keys step through."""
    failures: dict[str, str] = field(default_factory=dict)
    """Names of sinks that failed while others continued -> the reason, and what is left of the output."""
    kept: list[str] = field(default_factory=list)
    """One line for each unfinished recording: its length and its path."""
