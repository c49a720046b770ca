"""What all visitors share: one network on one device, whose turn it is, the settings that a dream starts from."""
from __future__ import annotations

import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from streamdream import models
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings
from streamdream.system import memory
from streamdream.system.process_tuning import freeze_gc

from .private_folder import PrivateFolder
from .scheduler import FairScheduler

if TYPE_CHECKING:
    from streamdream.backends import Backend, Step, StepSpec
    from streamdream.dream.dreamer import Dreamer

MAX_RATE, RATE_PER_CORE = 60.0, 24.0
"""Pictures a second: of a page, and of all pages together on one core."""
STEPS_KEPT = 1024
"""Steps whose preparations are known, of all visitors together: some KB each. What they hold is bounded by bytes, see
``streamdream.system.memory``."""


class SharedBackend:
    """A backend whose prepared steps serve every dreamer: each is run by whoever has the turn."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._steps = lru_cache(maxsize=STEPS_KEPT)(backend.compile)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def compile(self, spec: StepSpec) -> Step:
        return self._steps(spec)


class AppState:
    """Made once by ``server.create_app`` and given to every tab. ``folder`` holds all that visitors leave, until
    ``close``.
    """

    def __init__(self, web: WebSettings, dream: DreamSettings, stream: StreamSettings,
                 live: LiveSettings | None = None) -> None:
        self.web, self.dream, self.stream = web, dream, stream
        self.live = live or LiveSettings()
        self.model = models.get(stream.model)
        self.check(dream)
        self._private_folder = PrivateFolder()
        self.folder = self._private_folder.path
        self.active_sessions: set[str] = set()
        """Who dreams live now."""
        self.counts: Counter[str] = Counter()
        """What happened so far, by name; see ``metrics.py``. A few may get lost between threads."""
        self.closing: list[Callable[[], None]] = []
        """Called by ``close``, before the folder goes: what the tabs have started ends."""
        self._turns = FairScheduler()
        self._backends: dict[str, Backend] = {}
        self._loading = threading.Lock()
        self._lock, self._closed = threading.Lock(), False
        self._eviction = threading.Timer(0, memory.evict_idle)  # started by release
        self.warm_up_error = ""
        """Why the first dream failed, or "" if it did not."""

    @property
    def backend(self) -> Backend:
        """The one that every dreamer of the studio's own network shares; loaded at its first use.

        Raises UsageError, ModelError, MissingPackage.
        """
        return self._backend_of(self.model.name)

    def load(self) -> None:
        """The studio's own network. Raises UsageError, ModelError, MissingPackage."""
        self._backend_of(self.model.name)

    def _backend_of(self, model: str) -> Backend:
        from streamdream.dream.build import build_dreamer

        with self._loading:
            if model not in self._backends:
                shared: Any = SharedBackend(build_dreamer(dataclasses.replace(self.stream, model=model)).backend)
                self._backends[model] = shared
            return self._backends[model]

    def dreamer(self, model: str = "", field_height: int | None = None) -> Dreamer:
        """A new dreamer on the backend that all share, of that network or the server's own, at that field height or the
        server's own. Its steps may only run within ``device_slot``.
        """
        from streamdream.dream.dreamer import Dreamer

        row = models.get(model or self.model.name)
        height = self.stream.field_height if field_height is None else field_height
        return Dreamer(row, self._backend_of(row.name), height, self.stream.seed)

    def available_models(self) -> list[str]:
        """Those whose weights are here, the studio's own first."""
        return [self.model.name, *(name for name, row in models.MODELS.items()
                                   if name != self.model.name and row.available()[0])]

    def device_slot(self, client_id: str) -> AbstractContextManager[None]:
        """Within it the device is the caller's. Everybody who asks gets the same share of its time."""
        return self._turns.slot(client_id)

    @property
    def frame_rate(self) -> float:
        """Pictures a second that each live page should send: showing them takes the processor, too, and where it is
        short of time the dreams of all would starve.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return round(min(MAX_RATE, RATE_PER_CORE * cores / max(1, len(self.active_sessions))), 1)

    @property
    def slots_waiting(self) -> int:
        return self._turns.waiting

    def warm_up(self) -> None:
        """Loads the network and dreams once, so that the first visitor need not wait for that."""
        import numpy as np

        from streamdream.dream.dreamer import DreamState

        dreamer = self.dreamer()
        options = dataclasses.replace(dreamer.options, cycle_octaves=True)
        state, picture = DreamState(), np.zeros((480, 640, 3), np.uint8)
        with self.device_slot("warm-up"):
            for _ in range(2):
                settings = dataclasses.replace(self.dream, warmup_steps=0)
                state = dreamer.advance(state, picture, settings, options=options)
        self.release("warm-up")
        del dreamer, state
        freeze_gc()

    def release(self, client_id: str) -> None:
        """That visitor, or job, takes no more turns. What only they used leaves memory a while later."""
        self._turns.forget(client_id)
        with self._lock:
            self._eviction.cancel()
            if not self._closed:
                self._eviction = threading.Timer(memory.IDLE_SECONDS + 1, memory.evict_idle)
                self._eviction.daemon = True
                self._eviction.start()

    def check(self, dream: DreamSettings, model: str = "") -> None:
        """Raises UsageError for settings that the network, the studio's own or another that is here, cannot dream with,
        or that name a file: a visitor's files come as uploads, never as paths.
        """
        from streamdream.ascent import objectives

        for item in dataclasses.fields(dream):
            if item.metadata["kind"] == "picture" and getattr(dream, item.name):
                raise UsageError(f"{item.name} is a picture, and cannot be set by its name")
        objectives.from_settings(dream, models.get(model or self.model.name))

    def close(self) -> None:
        """Nothing of the visitors is left."""
        with self._lock:
            self._closed = True
            self._eviction.cancel()
        while self.closing:
            self.closing.pop()()
        self._private_folder.remove()
