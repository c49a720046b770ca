"""One background thread that makes pictures of networks, such as thumbnails, between the steps of visitors' dreams."""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from streamdream.errors import StreamdreamError

from .device_slots import DeviceSlot, StepwiseDeviceSlot
from .job import Cancelled

PAUSE_SECONDS, BUSY_PAUSE_SECONDS = 0.01, 0.5
"""Pause after each step, while the device is otherwise idle and while it is in use."""
BUSY_PAUSE_STEPS, MAX_PAUSE_SECONDS = 4.0, 10.0
"""While it is in use, a pause is as long as so many steps at least: a live session has most of the time, whatever a
step takes."""
log = logging.getLogger(__name__)


class BackgroundWorker:
    """Calls ``make`` with the names that were requested, the last one first, until ``pending(name)`` is false.

    ``make`` may return early when ``is_next(name)`` is false: it is called again later. Each of its steps belongs in
    ``slot``, which it yields after each; the pauses there are longer while ``busy`` is true. ``what`` names what is
    made, in messages.
    """

    def __init__(self, make: Callable[[str], None], pending: Callable[[str], bool], what: str, device_slot: DeviceSlot,
                 busy: Callable[[], bool]) -> None:
        self._make, self._pending, self._what, self._busy = make, pending, what, busy
        self.slot = StepwiseDeviceSlot(device_slot, self._pause)
        self.problem: dict[str, str] = {}
        """Why they cannot be made, by name."""
        self._requested: list[str] = []  # the next one first
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._step_began = time.monotonic()

    def request(self, name: str) -> None:
        """Make those of ``name`` next. Return at once."""
        with self._changed:
            if self._closed:
                return
            self._requested = [name, *(other for other in self._requested if other != name)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamdream-pictures", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def is_next(self, name: str) -> bool:
        """Return whether no other name was requested since."""
        return self._requested[:1] == [name]

    def close(self) -> None:
        """Stop after the current step."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while (name := self._next()) is not None:
            try:
                self._make(name)
            except Cancelled:
                return
            except StreamdreamError as error:
                self.problem[name] = str(error)
                log.warning("no %s of %s: %s", self._what, name, error)
            except Exception:
                self.problem[name] = f"the {self._what} cannot be made; see the server's log"
                log.exception("no %s of %s", self._what, name)
            going_on = name not in self.problem and self._pending(name)
            with self._changed:
                self._requested = [other for other in self._requested if other != name or going_on]

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._requested)
            return None if self._closed else self._requested[0]

    def _pause(self) -> None:
        """Leave the device to others between two steps. Raises Cancelled after ``close``."""
        step_seconds = time.monotonic() - self._step_began
        busy_pause = min(max(BUSY_PAUSE_SECONDS, BUSY_PAUSE_STEPS * step_seconds), MAX_PAUSE_SECONDS)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, busy_pause if self._busy() else PAUSE_SECONDS)
            if self._closed:
                raise Cancelled("the server is shutting down")
        self._step_began = time.monotonic()
