"""Device slots for jobs, which are shorter than a job."""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

DeviceSlot = Callable[[], AbstractContextManager[object]]


class StepwiseDeviceSlot:
    """Device slots that end with each step, so that no live session waits for a whole picture.

    ``with slot():`` holds the device; ``slot.yield_device()``, called within it after each step, releases it, calls
    ``between``, and waits for it again.
    """

    def __init__(self, device_slot: DeviceSlot, between: Callable[[], None] = lambda: None) -> None:
        self._device_slot, self._between = device_slot, between
        self._held: AbstractContextManager[object] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Any:
        self._begin()
        try:
            yield
        finally:
            self._end()

    def yield_device(self) -> None:
        if self._held is not None:
            self._end()
            self._between()
            self._begin()

    def _begin(self) -> None:
        held = self._device_slot()
        held.__enter__()
        self._held = held

    def _end(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)
