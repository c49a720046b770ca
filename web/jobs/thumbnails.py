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

from .background_worker import BackgroundWorker
from .device_slots import DeviceSlot

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
        self._stream, self._folder = stream, folder or cache_dir.cache_dir("layers")
        self._cells: dict[str, dict[str, Cell]] = {}
        self._planning = threading.Lock()
        self._worker = BackgroundWorker(self._make, self.pending, "pictures of the layers", device_slot, busy)
        self.problem = self._worker.problem
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
        if self.pending(model):
            self._worker.request(model)

    def close(self) -> None:
        """Stop after the current step; keep finished thumbnails."""
        self._worker.close()

    def _plan(self, model: str) -> dict[str, Cell]:
        with self._planning:
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

    def _make(self, name: str) -> None:
        """Make the thumbnails of ``name``, blocks first, until all are done or another network is requested."""
        from streamdream import backends
        from streamdream.render import atlas

        model = models.get(name)
        backend: Backend = backends.create("eager", model, self._stream.device, self._stream.precision)
        blocks = model.blocks(pools=True)
        for cell in sorted(self._plan(name).values(), key=lambda cell: cell.tap not in blocks):
            if cell.done:
                continue
            if not self._worker.is_next(name):
                return
            renderer = atlas.AtlasRenderer(sample_image(), model, backend, StreamSettings(model=name), [cell],
                                           lambda done: self._worker.slot.yield_device())
            with use_threads(1), self._worker.slot():
                renderer.run(lambda done, seconds_left: None)
