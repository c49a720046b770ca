"""How long dreams took at each field on this machine, kept for the next run, which begins with a field that fits."""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from streamdream.ascent import objectives
from streamdream.backends import engine_cache
from streamdream.errors import UsageError
from streamdream.system.torch_threads import process_threads

if TYPE_CHECKING:
    from streamdream.automation.controls import DreamRequest
    from streamdream.dream.dreamer import Dreamer

WINDOW = 16
"""Latest dreams whose median is kept for a field; with fewer than half as many nothing is."""
MAX_SECONDS = 1000.0
"""A stored time above it, or not above 0, is damaged."""


class FieldTimes:
    """Seconds of a dream by the name of its field (``ResolutionController.level``), for one key.

    The key holds all that they depend on, but the load of the machine: so they may be wrong, and whoever starts from
    them measures on.
    """

    def __init__(self, key: Mapping[str, str]) -> None:
        self._key = dict(key)
        self.stored = {name: float(seconds) for name, seconds in (engine_cache.load_measurement(key) or {}).items()
                       if isinstance(seconds, int | float) and 0 < seconds < MAX_SECONDS}
        self._latest: dict[str, deque[float]] = {}

    def observe(self, level: str, seconds: float) -> None:
        """Record the duration of a dream at that field."""
        self._latest.setdefault(level, deque(maxlen=WINDOW)).append(seconds)

    def save(self) -> None:
        """Store what earlier runs measured and, instead of it where it was measured again, what this one did."""
        measured = {level: round(median(times), 5) for level, times in self._latest.items()
                    if len(times) >= WINDOW // 2}
        if measured:
            engine_cache.store_measurement(self._key, self.stored | measured)


class FieldTimesOfRun:
    """The times of one live run, whose content may change. ``backend`` is the name that was asked for, maybe auto."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._times: dict[tuple[str, ...], FieldTimes] = {}

    def of(self, dreamer: Dreamer, request: DreamRequest, height: int, width: int, on_device: bool = False
           ) -> FieldTimes:
        """Return the times of that content in frames of that shape, whose dream is all ``on_device`` or not."""
        dream, backend = request.dream, dreamer.backend
        try:
            taps = " ".join(objectives.from_settings(dream, dreamer.model).taps)
        except UsageError:  # the dream says what is wrong
            taps = dream.layers
        content = {"measurement": "live dream", "model": dreamer.model.name,
                   "taps": taps, "octaves": f"{dream.octaves} by {dream.octave_scale}", "steps": str(dream.steps),
                   "shape": f"{width / max(height, 1):.1f}", "backend": self._backend, "precision": backend.precision,
                   "threads": str(process_threads())}
        if on_device:
            content["frame_path"] = "device"
        values = tuple(content.values())
        if values not in self._times:
            from streamdream.backends.precision import device_name  # loads torch

            self._times[values] = FieldTimes(content | {"device": device_name(backend.device)})
        return self._times[values]

    def save(self) -> None:
        """Store the times of all contents."""
        for times in self._times.values():
            times.save()
