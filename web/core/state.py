"""The state shared by all visitors: backends on one device, its slot, default settings, a folder."""
from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import models
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings
from streamdream.system import memory
from streamdream.system.machine import usable_cores
from streamdream.system.process_tuning import freeze_gc

from .dream_health import DRAINING, DreamHealth
from .kept_folder import join_folder, lock_folder
from .private_folder import PrivateFolder
from .scheduler import FairScheduler, Use

if TYPE_CHECKING:
    from streamdream.backends import Backend, Step, StepSpec
    from streamdream.dream.dreamer import Dreamer
    from streamdream.models import Model

MAX_RATE, RATE_PER_CORE = 60.0, 24.0
"""Frames per second: of one page, and of all pages together per core."""
MAX_CACHED_STEPS = 1024
"""Prepared steps in the cache, for all visitors: some KB each. ``streamdream.system.memory`` limits their weights."""


WARMUP_FRAMES = 6
"""Frames of a warm-up on a device, further ones: whole frames are captured after a few calls, each octave on its own.
"""


class SharedBackend:
    """A backend whose prepared steps are shared by all dreamers; only the holder of the device slot runs a step."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._steps = lru_cache(maxsize=MAX_CACHED_STEPS)(backend.compile)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def compile(self, spec: StepSpec) -> Step:
        return self._steps(spec)


def check_dream_settings(dream: DreamSettings, model: Model) -> None:
    """Raises UsageError for settings that the model cannot dream with, or that name a file: a visitor's files come as
    uploads, never as paths.
    """
    from streamdream.ascent import objectives

    for item in dataclasses.fields(dream):
        if item.metadata["kind"] == "picture" and getattr(dream, item.name):
            raise UsageError(f"{item.name} is a picture: it cannot be set to a path")
    objectives.from_settings(dream, model)


class AppState:
    """The state of one server. ``folder`` contains the files of visitors; ``close`` removes it.

    Raises UsageError for settings that the model cannot dream with.
    """

    def __init__(self, web: WebSettings, dream: DreamSettings, stream: StreamSettings,
                 live: LiveSettings | None = None) -> None:
        self.web, self.dream, self.stream = web, dream, stream
        self.live = live or LiveSettings()
        self.model = models.get(stream.model)
        self.check(dream)
        self._private_folder = PrivateFolder()
        self.folder = self._private_folder.path
        self.keeps = bool(web.keep_folder)
        """Whether uploads and results outlive the server."""
        self.replica = join_folder(Path(web.shared_folder)) if web.shared_folder else None
        """This server among others that share the kept folder."""
        self._lock_on_kept = lock_folder(Path(web.keep_folder)) if self.keeps and not self.replica else None
        self.kept_folder = Path(web.keep_folder) if self.keeps else self.folder
        self.active_sessions: set[str] = set()
        """Tokens of the running live sessions."""
        self.counts: Counter[str] = Counter()
        """Number of events by name, see ``metrics.py``. Updates of several threads may lose a few."""
        self.closing: list[Callable[[], None]] = []
        """Called by ``close`` before the folder is removed."""
        self._scheduler = FairScheduler()
        self._backends: dict[str, Backend] = {}
        self._loading = threading.Lock()
        self._lock, self._closed = threading.Lock(), False
        self._eviction = threading.Timer(0, memory.evict_idle)  # started by release
        self.health = DreamHealth()
        self.draining = False
        """Whether the server takes no new visitors, as it is going to stop: see ``server/draining.py``."""

    @property
    def backend(self) -> Backend:
        """The backend of the server's own model, shared by all dreamers; loaded at its first use.

        Raises UsageError, ModelError, MissingPackage.
        """
        return self._backend_of(self.model.name)

    def load(self) -> None:
        """Load the server's own model. Raises UsageError, ModelError, MissingPackage."""
        self._backend_of(self.model.name)

    def _backend_of(self, model: str) -> Backend:
        from streamdream.dream.build import build_dreamer

        with self._loading:
            if model not in self._backends:
                shared: Any = SharedBackend(build_dreamer(dataclasses.replace(self.stream, model=model)).backend)
                self._backends[model] = shared
            return self._backends[model]

    def dreamer(self, model: str = "", field_height: int | None = None) -> Dreamer:
        """Make a dreamer on the shared backend of that model, with that field height; by default the server's own. Its
        steps may only run within ``device_slot``.
        """
        from streamdream.dream.dreamer import Dreamer

        row = models.get(model or self.model.name)
        height = self.stream.field_height if field_height is None else field_height
        return Dreamer(row, self._backend_of(row.name), height, self.stream.seed, self.stream.frame_path)

    def available_models(self) -> list[str]:
        """Names of models with installed weights, the server's own first."""
        return [self.model.name, *(name for name, row in models.MODELS.items()
                                   if name != self.model.name and row.available()[0])]

    def device_slot(self, client_id: str) -> AbstractContextManager[Use]:
        """Hold the device. Waiting clients get equal shares of its time."""
        return self._scheduler.device_slot(client_id)

    @property
    def frame_rate(self) -> float:
        """Frames per second that each live page should send. Display takes CPU time as well: with more, the dreams of
        all visitors would starve.
        """
        return round(min(MAX_RATE, RATE_PER_CORE * usable_cores() / max(1, len(self.active_sessions))), 1)

    @property
    def waiting_for_device(self) -> int:
        return self._scheduler.waiting

    @property
    def device_seconds(self) -> float:
        """Seconds for which the device was in use so far."""
        return self._scheduler.used_seconds

    @property
    def readiness(self) -> str:
        """Whether visitors get dreams, and new ones are taken: DRAINING, or see ``DreamHealth.status``."""
        return DRAINING if self.draining else self.health.status(self._scheduler.stalled_seconds)

    def warm_up(self) -> None:
        """Load the model and dream once, so that the first visitor does not wait for that."""
        import numpy as np

        from streamdream.dream.state import DreamState
        from streamdream.media.frame import Frame

        dreamer = self.dreamer()
        settings = dataclasses.replace(self.dream, warmup_steps=0)
        on_device = dreamer.on_device(settings)  # there live dreams begin with all octaves
        options = dataclasses.replace(dreamer.options, cycle_octaves=not on_device, cut_on_device=True, levels=True)
        state, frame = DreamState(), Frame(np.zeros((480, 640, 3), np.uint8), 0.0)
        with self.device_slot("warm-up"):
            for _ in range(2 + WARMUP_FRAMES * on_device):
                state, pending = dreamer.submit(state, frame, settings, options=options)
                pending.result()
        self.release("warm-up")
        del dreamer, state, pending
        freeze_gc()

    def release(self, client_id: str) -> None:
        """Forget a client that needs the device no more. Memory that only it used is freed later."""
        self._scheduler.forget(client_id)
        with self._lock:
            self._eviction.cancel()
            if not self._closed:
                self._eviction = threading.Timer(memory.IDLE_SECONDS + 1, memory.evict_idle)
                self._eviction.daemon = True
                self._eviction.start()

    def check(self, dream: DreamSettings, model: str = "") -> None:
        """Raises UsageError as ``check_dream_settings``, for the server's own model or ``model``."""
        check_dream_settings(dream, models.get(model or self.model.name))

    def close(self) -> None:
        """Stop the threads and remove the folder."""
        with self._lock:
            self._closed = True
            self._eviction.cancel()
        while self.closing:
            self.closing.pop()()
        self._private_folder.remove()
        if self._lock_on_kept is not None:
            self._lock_on_kept.release()
        if self.replica is not None:
            self.replica.close()
