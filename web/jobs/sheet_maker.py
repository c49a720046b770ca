"""Makes the sheets of channels of networks whose sheets are not in the package; see ``models.channel_sheets``."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

from streamdream import models
from streamdream.models import channel_sheets
from streamdream.settings import StreamSettings
from streamdream.system.torch_threads import use_threads

from .background_worker import BackgroundWorker
from .device_slots import DeviceSlot


class SheetMaker:
    """Sheets of the blocks of networks, made by one background thread and kept in the cache folder."""

    def __init__(self, stream: StreamSettings, device_slot: DeviceSlot, busy: Callable[[], bool]) -> None:
        self._stream, self._first = stream, ""
        self._done: dict[str, tuple[str, int]] = {}  # by network: the layer that is made, and its finished channels
        self._worker = BackgroundWorker(self._make, self.pending, "pictures of the channels", device_slot, busy)
        self.problem = self._worker.problem
        """Why the sheets of a model cannot be made, by model."""

    def pending(self, model: str) -> bool:
        """Return whether sheets are still to be made, and can be."""
        return models.get(model).available()[0] and model not in self.problem and bool(self._missing(model))

    def request(self, model: str, tap: str = "") -> None:
        """Make the sheets of ``model`` next, that of ``tap`` first. Return at once."""
        self._first = tap
        if self.pending(model):
            self._worker.request(model)

    def count(self, model: str) -> tuple[int, int]:
        """Return how many channels of the blocks are done, and how many there are."""
        row, missing = models.get(model), self._missing(model)
        counts = {tap: row.taps()[tap].channels for tap in row.blocks()}
        done = sum(count for tap, count in counts.items() if tap not in missing)
        tap, cells = self._done.get(model, ("", 0))
        return done + (cells if tap in missing else 0), sum(counts.values())

    def close(self) -> None:
        """Stop after the current step; finished parts are kept."""
        self._worker.close()

    def _missing(self, model: str) -> list[str]:
        return [tap for tap in models.get(model).blocks() if channel_sheets.sheet(model, tap) is None]

    def _make(self, name: str) -> None:
        """Make the sheets of ``name``, the requested one first, until all are done or another network is requested."""
        from streamdream.dream.channel_atlas import ChannelDreamer, make_sheet

        model = models.get(name)
        while (missing := self._missing(name)) and self._worker.is_next(name):
            tap = self._first if self._first in missing else missing[0]
            on_cells = partial(self._on_cells, name, tap)
            with use_threads(1), self._worker.slot():
                dreamer = ChannelDreamer(model, tap, self._stream.device, self._stream.precision,
                                         self._worker.slot.yield_device)
                make_sheet(dreamer, channel_sheets.made_path(name, tap), on_cells)

    def _on_cells(self, name: str, tap: str, done: int) -> None:
        self._done[name] = tap, done
