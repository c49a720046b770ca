"""What every layer of a network dreams, small: made once, when nobody else needs the device, and kept in the cache.

One thread works through what pages ask for. It dreams one stock picture at every layer, as `streamdream atlas` does.
"""
from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream import models
from streamdream.errors import StreamdreamError
from streamdream.media import images
from streamdream.media.resize import resize
from streamdream.settings import StreamSettings, resolve
from streamdream.system import cache_dir
from streamdream.system.torch_threads import use_threads

from .queue import Cancelled, StepwiseSlot, Turn

if TYPE_CHECKING:
    from streamdream.backends import Backend
    from streamdream.render.atlas import Cell

STOCK = "media_assets/images/lion.jpg"
"""A picture that comes with gradio."""
SIDE = 160
"""Pixels of a thumbnail."""
STEPS = 8
REST_SECONDS = 0.01
"""Between two steps: about half of the time goes to others, even when nobody asks."""
BUSY_REST_SECONDS, BUSY_SHARE, LONGEST_REST_SECONDS = 0.5, 0.05, 20.0
"""The same while somebody dreams: at least so long, and until the last step was no more than this part of the time."""
log = logging.getLogger(__name__)


class Thumbnails:
    """The dreams of layers, by (model, tap). ``turn`` is entered for every step; while ``busy``, steps become rare."""

    def __init__(self, stream: StreamSettings, turn: Turn, busy: Callable[[], bool] = lambda: False,
                 folder: Path | None = None) -> None:
        self._stream, self._turn, self._busy = stream, turn, busy
        self._folder = folder or cache_dir.cache_dir("layers")
        self._cells: dict[str, dict[str, Cell]] = {}
        self._wanted: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._began_seconds = 0.0
        self.problem: dict[str, str] = {}

    def path(self, model: str, tap: str) -> Path | None:
        """The file of that layer's dream, once it is there."""
        cell = self._plan(model).get(tap)
        return cell.path if cell is not None and cell.done else None

    def done(self, model: str) -> list[str]:
        """The layers whose dreams are there."""
        return [tap for tap, cell in self._plan(model).items() if cell.done]

    def count(self, model: str) -> tuple[int, int]:
        """How many are there, and how many there will be."""
        return len(self.done(model)), len(self._plan(model))

    def pending(self, model: str) -> bool:
        """Are some still to be made, and will they?"""
        if not models.get(model).available()[0]:
            return False
        done, count = self.count(model)
        return done < count and model not in self.problem

    def request(self, model: str) -> None:
        """Have those of that network made next. Returns at once; nothing happens without its weights."""
        if not self.pending(model):
            return
        with self._changed:
            if self._closed:
                return
            self._wanted = [model, *(other for other in self._wanted if other != model)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamdream-thumbnails", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Stops after the step that runs; what is done stays."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _plan(self, model: str) -> dict[str, Cell]:
        with self._changed:
            if model not in self._cells:
                try:
                    self._cells[model] = self._prepare(model)
                except (StreamdreamError, OSError) as error:  # a cache folder that cannot be written
                    log.warning("the layers of %s cannot be shown: %s", model, error)
                    self.problem[model], self._cells[model] = "its dreams cannot be kept here", {}
            return self._cells[model]

    def _prepare(self, name: str) -> dict[str, Cell]:
        from streamdream.render import atlas

        model, image = models.get(name), sample_image()
        settings = resolve({"steps": str(STEPS)}, {}, "atlas").dream
        folder = self._folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        atlas.prepare_folder(folder, atlas.make_key(image, settings, StreamSettings(model=name)), overwrite=True)
        cells = atlas.plan(model, list(model.taps()), settings, image.shape[:2], folder)
        return {cell.tap: cell for cell in cells}

    def _run(self) -> None:
        while (name := self._next()) is not None:
            try:
                self._make(name)
            except Cancelled:
                return
            except StreamdreamError as error:
                self.problem[name] = str(error)
                log.warning("the layers of %s cannot be shown: %s", name, error)
            except Exception:
                self.problem[name] = "its dreams cannot be made here; the log says why"
                log.exception("the layers of %s cannot be shown", name)
            with self._changed:
                self._wanted = [other for other in self._wanted if other != name or self._is_interrupted(name)]

    def _is_interrupted(self, name: str) -> bool:
        return name not in self.problem and any(not cell.done for cell in self._cells[name].values())

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._wanted)
            return None if self._closed else self._wanted[0]

    def _make(self, name: str) -> None:
        """Until it is done, or another network is wanted first."""
        from streamdream import backends
        from streamdream.render import atlas

        model = models.get(name)
        backend: Backend = backends.create("eager", model, self._stream.device, self._stream.precision)
        first = models.get(name).blocks(pools=True)
        cells = sorted(self._plan(name).values(), key=lambda cell: cell.tap not in first)
        turns = StepwiseSlot(self._turn, self._throttle)
        for cell in cells:
            if cell.done:
                continue
            if self._wanted[:1] != [name]:
                return
            maker = atlas.AtlasRenderer(sample_image(), model, backend, StreamSettings(model=name), [cell],
                                        lambda done: turns.yield_slot())
            self._began_seconds = time.monotonic()
            with use_threads(1), turns():
                maker.run(lambda done, left: None)

    def _throttle(self) -> None:
        """Between two steps, when the device is anybody's."""
        took, rest = time.monotonic() - self._began_seconds, REST_SECONDS
        if self._busy():
            rest = min(LONGEST_REST_SECONDS, max(BUSY_REST_SECONDS, took / BUSY_SHARE))
        with self._changed:
            self._changed.wait_for(lambda: self._closed, rest)
            if self._closed:
                raise Cancelled("the server goes down")
        self._began_seconds = time.monotonic()


def sample_image() -> NDArray[np.uint8]:
    """The picture that layers are shown on, uint8 [SIDE, SIDE, 3] RGB."""
    spec = importlib.util.find_spec("gradio")
    assert spec and spec.origin
    return resize(images.read_image(str(Path(spec.origin).parent / STOCK)), SIDE, SIDE)
