"""Thumbnails: a small picture of what each layer of a network dreams.

Those of the embedded network are shipped (``build_thumbnails`` makes them). Those of a fetched network are made once,
by one background thread, and stored in the cache folder. All show the same sample image.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream import models
from streamdream.errors import StreamdreamError
from streamdream.media import images
from streamdream.settings import DreamSettings, StreamSettings, resolve
from streamdream.system import cache_dir
from streamdream.system.torch_threads import use_threads

from .queue import Cancelled, DeviceSlot, StepwiseDeviceSlot

if TYPE_CHECKING:
    from streamdream.backends import Backend
    from streamdream.render.atlas import Cell

SHIPPED = Path(__file__).parents[1] / "assets" / "layers"
"""The sample image, and a folder for each network whose thumbnails are shipped."""
SHIPPED_SUFFIX = ".webp"
SAMPLE = SHIPPED / "cat.png"
SIDE = 160
"""Width and height of a thumbnail in pixels."""
STEPS = 8
PAUSE_SECONDS, BUSY_PAUSE_SECONDS = 0.01, 0.5
"""Pause after each step, while the device is otherwise idle and while it is in use."""
log = logging.getLogger(__name__)


def shipped_path(model: str, tap: str) -> Path:
    """Return where the thumbnail of that layer is if it is shipped."""
    return SHIPPED / model / (tap.replace("/", "_") + SHIPPED_SUFFIX)


def is_shipped(model: str) -> bool:
    return (SHIPPED / model).is_dir()


def sample_image() -> NDArray[np.uint8]:
    """Return the image that all thumbnails show, uint8 [SIDE, SIDE, 3] RGB."""
    return images.read_image(str(SAMPLE))


def dream_settings() -> DreamSettings:
    """Return the settings of a thumbnail."""
    return resolve({"steps": str(STEPS)}, {}, "atlas").dream


class Thumbnails:
    """Thumbnails by (model, tap). Each step enters ``device_slot``; the pauses are longer while ``busy`` is true."""

    def __init__(self, stream: StreamSettings, device_slot: DeviceSlot, busy: Callable[[], bool] = lambda: False,
                 folder: Path | None = None) -> None:
        self._stream, self._device_slot, self._busy = stream, device_slot, busy
        self._folder = folder or cache_dir.cache_dir("layers")
        self._cells: dict[str, dict[str, Cell]] = {}
        self._requested: list[str] = []  # the next one first
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.problem: dict[str, str] = {}
        """Why the thumbnails of a model cannot be made, by model."""

    def path(self, model: str, tap: str) -> Path | None:
        """Return the file of that layer's thumbnail, or None if there is none yet."""
        if is_shipped(model):
            path = shipped_path(model, tap)
            return path if path.exists() else None
        cell = self._plan(model).get(tap)
        return cell.path if cell is not None and cell.done else None

    def done(self, model: str) -> list[str]:
        """Return the layers whose thumbnails have been made here."""
        return [tap for tap, cell in self._plan(model).items() if cell.done]

    def count(self, model: str) -> tuple[int, int]:
        """Return how many thumbnails are done, and how many there will be."""
        return len(self.done(model)), len(self._plan(model))

    def pending(self, model: str) -> bool:
        """Return whether some are still to be made, and can be."""
        if is_shipped(model) or not models.get(model).available()[0]:
            return False
        done, count = self.count(model)
        return done < count and model not in self.problem

    def request(self, model: str) -> None:
        """Make those of ``model`` next. Return at once; do nothing if all are there or the weights are missing."""
        if not self.pending(model):
            return
        with self._changed:
            if self._closed:
                return
            self._requested = [model, *(other for other in self._requested if other != model)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamdream-thumbnails", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop after the current step; keep finished thumbnails."""
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
                except (StreamdreamError, OSError) as error:  # the cache folder cannot be written
                    log.warning("no thumbnails of %s: %s", model, error)
                    self.problem[model], self._cells[model] = "the server cannot store pictures of the layers", {}
            return self._cells[model]

    def _prepare(self, name: str) -> dict[str, Cell]:
        from streamdream.render import atlas

        image, settings = sample_image(), dream_settings()
        folder = self._folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        atlas.prepare_folder(folder, atlas.make_key(image, settings, StreamSettings(model=name)), overwrite=True)
        model = models.get(name)
        return {cell.tap: cell for cell in atlas.plan(model, list(model.taps()), settings, image.shape[:2], folder)}

    def _run(self) -> None:
        while (name := self._next()) is not None:
            try:
                self._make(name)
            except Cancelled:
                return
            except StreamdreamError as error:
                self.problem[name] = str(error)
                log.warning("no thumbnails of %s: %s", name, error)
            except Exception:
                self.problem[name] = "the pictures of the layers cannot be made; see the server's log"
                log.exception("no thumbnails of %s", name)
            with self._changed:
                self._requested = [other for other in self._requested if other != name or self._is_interrupted(name)]

    def _is_interrupted(self, name: str) -> bool:
        return name not in self.problem and any(not cell.done for cell in self._cells[name].values())

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._requested)
            return None if self._closed else self._requested[0]

    def _make(self, name: str) -> None:
        """Make the thumbnails of ``name``, blocks first, until all are done or another network is requested."""
        from streamdream import backends
        from streamdream.render import atlas

        model = models.get(name)
        backend: Backend = backends.create("eager", model, self._stream.device, self._stream.precision)
        blocks = model.blocks(pools=True)
        stepwise_slot = StepwiseDeviceSlot(self._device_slot, self._pause)
        for cell in sorted(self._plan(name).values(), key=lambda cell: cell.tap not in blocks):
            if cell.done:
                continue
            if self._requested[:1] != [name]:
                return
            renderer = atlas.AtlasRenderer(sample_image(), model, backend, StreamSettings(model=name), [cell],
                                           lambda done: stepwise_slot.yield_device())
            with use_threads(1), stepwise_slot():
                renderer.run(lambda done, seconds_left: None)

    def _pause(self) -> None:
        """Leave the device to others between two steps. Raises Cancelled after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, BUSY_PAUSE_SECONDS if self._busy() else PAUSE_SECONDS)
            if self._closed:
                raise Cancelled("the server is shutting down")
