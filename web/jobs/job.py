"""One job: its state, its progress, its newest preview."""
from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamdream.errors import StreamdreamError

from .request import JobRequest

Work = Callable[["Job"], None]
FINISHED = ("done", "failed", "cancelled")


class Cancelled(StreamdreamError):
    """The visitor has cancelled the job, or the server is shutting down."""


class Postponed(StreamdreamError):
    """The job cannot go on now: it waits, and is begun again; in the end this is its error."""


@dataclass(eq=False)
class Job:
    """The page names it by ``token``, which is also the permission to see it."""

    title: str
    visitor: str
    work: Work
    folder: Path
    """A folder of this job only, removed with it."""
    address: str = ""
    """Of the visitor."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    request: JobRequest | None = None
    """None for a preview, which nobody misses after a restart."""
    number: int = 0
    """Order of submission."""
    owner: str = ""
    """The replica that runs it, where several share the folder."""
    state: str = "waiting"
    """``waiting``, ``running``, ``done``, ``failed``, ``cancelled``."""
    attempts: int = 0
    """How often it was begun: more than once after a restart."""
    done: int = 0
    total: int = 0
    """Frames or steps; ``total`` is 0 while it is unknown."""
    picture: Any = None
    """The newest preview of a running job, [H, W, 3] RGB."""
    previews: int = 0
    """How many previews there were."""
    result: Path | None = None
    answer: Any = None
    """A result that is no file."""
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    submitted_at: float = field(default_factory=time.time)
    """Seconds since 1970."""
    begins_after_seconds: float = 0.0
    """When it may begin again after it was postponed."""
    postponed_since_seconds: float = 0.0
    began_seconds: float = 0.0
    first_seconds: float = 0.0
    """When the first frame of this attempt was done; the time before it is loading."""
    first_done: int = 0
    """``done`` at that time."""
    ended_seconds: float = 0.0
    size_bytes: int | None = None
    """Of its files once it has ended; None until that is counted."""
    spare_seconds: Callable[[Job], float] = lambda job: math.inf
    """How much longer it may run, infinite while no other visitor waits."""
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)
    interrupted: bool = False
    """Whether it is stopped in order to go on after a restart."""
    changed: threading.Event = field(default_factory=threading.Event)
    changed_since_save: bool = False
    """Whether it went on since its record was written for other replicas."""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    def check(self) -> None:
        """Raise Cancelled, or StreamdreamError if the time limit is exceeded. To be called often by the work."""
        if self.stop.is_set():
            raise Cancelled("cancelled")
        if self.spare_seconds(self) < 0:
            raise StreamdreamError("the time limit is reached and others wait; dream a shorter part, or a smaller size")

    def progress(self, done: int, total: int = 0) -> None:
        """Report finished frames or steps. Raises as ``check``."""
        self.check()
        if not self.first_seconds and done:
            self.first_seconds, self.first_done = self.clock(), done
        self.done, self.total = done, total or self.total
        self.changed_since_save = True
        self.changed.set()

    def show(self, picture: Any) -> None:
        self.picture = picture
        self.previews += 1
        self.changed.set()

    @property
    def share(self) -> float:
        """Fraction that is done, 0..1; 0 while it is unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def left_seconds(self) -> float | None:
        """Estimate at the speed so far; None while that is unknown."""
        if self.state != "running" or not self.total or not self.first_seconds or self.done <= self.first_done:
            return None
        speed = (self.done - self.first_done) / max(1e-6, self.clock() - self.first_seconds)
        return max(0, self.total - self.done) / speed
