"""The layer atlas: one picture dreamed at every tap of a network, lowest first, on one labelled sheet.

Each dream is a file of its own as soon as it is done, so an atlas that was interrupted goes on where it was.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream import __version__
from streamdream.errors import SinkError, UsageError
from streamdream.media import images
from streamdream.models.nodes import count_flop, subgraph
from streamdream.render.contact_sheet import draw_contact_sheet
from streamdream.system.atomic_file import remove_stale, write_file

if TYPE_CHECKING:
    from streamdream.backends import Backend
    from streamdream.models import Model
    from streamdream.settings import AtlasSettings, DreamSettings, StreamSettings

Picture = NDArray[np.uint8]

KEY_FILE = "atlas.json"
CELL_NAME = re.compile(r"\d{3}_[\w.]+\.png")


@dataclass(frozen=True)
class Cell:
    """One tap of the atlas and the file that holds its dream."""

    tap: str
    path: Path
    settings: DreamSettings
    """Of its dream: the atlas's own, with that tap and with no octave too small for it."""
    flop: int
    """Of one pass over all octaves."""

    @property
    def done(self) -> bool:
        return self.path.exists()


def plan(model: Model, taps: Sequence[str], settings: DreamSettings, field: tuple[int, int], folder: Path
         ) -> list[Cell]:
    """A cell for every tap; those that the picture is too small for are left out."""
    from streamdream.dream.octaves import octave_sizes

    known, nodes, cells = model.taps(), model.nodes(), []
    for number, tap in enumerate(taps, 1):
        sizes = octave_sizes(*field, settings.octaves, settings.octave_scale)
        sizes = [size for size in sizes if min(size) >= known[tap].min_size]
        if sizes:
            flop = sum(count_flop(subgraph(nodes, [tap]), *size) for size in sizes)
            name = f"{number:03d}_{tap.replace('/', '_')}.png"
            cells.append(Cell(tap, folder / name, replace(settings, layers=tap, octaves=len(sizes)), flop))
    return cells


def make_key(image: Picture, settings: DreamSettings, stream: StreamSettings) -> str:
    """What two runs must share so that one goes on with the other's dreams. Memory changes no dream, and threads only
    its rounding.
    """
    same = {name: value for name, value in asdict(stream).items() if name not in ("memory", "threads")}
    what = {"version": __version__, "dream": asdict(settings), "stream": same, "size": image.shape,
            "image": hashlib.sha256(image.tobytes()).hexdigest()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def is_part(path: Path) -> bool:
    """Does a file in the folder of an atlas belong to it, by its name?"""
    return path.name == KEY_FILE or CELL_NAME.fullmatch(path.name) is not None


def prepare_folder(folder: Path, key: str, overwrite: bool) -> None:
    """Make it, or go on in it. Dreams of another key are removed if that was asked for, else it is a UsageError.

    Nothing else in it is ever touched.
    """
    key_file = folder / KEY_FILE
    try:
        remove_stale(folder, key_file.stem, key_file.suffix)
        if folder.exists() and any(folder.iterdir()):
            stored = json.loads(key_file.read_text()) if key_file.exists() else None
            found = stored.get("key") if isinstance(stored, dict) else None
            if found == key:
                return
            if not overwrite or found is None:
                raise UsageError(f"{folder} holds " + ("something else than an atlas; name another folder"
                                 if found is None else "an atlas of another picture or other settings; -y replaces it"))
            for path in folder.iterdir():
                if CELL_NAME.fullmatch(path.name):
                    path.unlink()
        folder.mkdir(exist_ok=True)
        write_file(str(key_file), (json.dumps({"key": key}) + "\n").encode(), overwrite=True)
    except (OSError, ValueError, RecursionError) as error:
        raise SinkError(f"{folder}: {getattr(error, 'strerror', None) or error}") from None


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no dream is done."""
    with contextlib.suppress(OSError):  # there is none, or it may not be changed
        if all(path.name == KEY_FILE for path in folder.iterdir()):
            (folder / KEY_FILE).unlink(missing_ok=True)
            folder.rmdir()


class AtlasRenderer:
    """Dreams the cells that are not there yet, and knows how long that takes. ``on_step`` gets the number of steps
    done of the current cell.
    """

    def __init__(self, image: Picture, model: Model, backend: Backend, stream: StreamSettings,
                 cells: Sequence[Cell], on_step: Callable[[int], None] | None = None) -> None:
        self._image, self._model, self._backend, self._stream = image, model, backend, stream
        self.cells = cells
        self.remaining = [cell for cell in cells if not cell.done]
        self._flop_remaining = sum(cell.flop for cell in self.remaining)
        self._seconds, self._flop = 0.0, 0
        self._on_step = on_step

    def estimate_seconds(self) -> float:
        """Of all that is left: at the speed of the cells done so far; before the first, of one step of a middle one."""
        if not self.remaining:
            return 0.0
        if not self._flop:
            cell = sorted(self.remaining, key=lambda cell: cell.flop)[len(self.remaining) // 2]
            once = replace(cell.settings, steps=1, warmup_steps=0)
            self._dream(cell, once)
            begin = time.perf_counter()
            self._dream(cell, once)
            return (time.perf_counter() - begin) / cell.flop * self._flop_remaining * self._passes(cell)
        return self._seconds / self._flop * self._flop_remaining

    def run(self, on_cell: Callable[[int, float], None]) -> None:
        """``on_cell`` gets the number of cells done, of all, and the seconds left."""
        for cell in list(self.remaining):
            begin = time.perf_counter()
            picture = self._dream(cell, cell.settings)
            if not cell.done:  # else another program that makes the same atlas was faster
                images.write_image(str(cell.path), picture)
            self._seconds, self._flop = self._seconds + time.perf_counter() - begin, self._flop + cell.flop
            self._flop_remaining -= cell.flop
            self.remaining.remove(cell)
            on_cell(len(self.cells) - len(self.remaining), self.estimate_seconds())

    @staticmethod
    def _passes(cell: Cell) -> int:
        return cell.settings.steps * (1 + cell.settings.warmup_steps)

    def _dream(self, cell: Cell, settings: DreamSettings) -> Picture:
        from streamdream.dream.dreamer import Dreamer, DreamState

        # a dreamer for each, so that the networks cut at other taps are let go
        dreamer = Dreamer(self._model, self._backend, self._stream.field_height, self._stream.seed)
        options = replace(dreamer.options, on_step=self._on_step)
        return dreamer(DreamState(), self._image, settings, options=options)[1]


def draw_sheet(image: Picture, cells: Sequence[Cell], settings: AtlasSettings) -> Picture:
    """The picture and its dreams in rows, each with its tap's name below: uint8 [H, W, 3] RGB."""
    pictures = [("the picture", image), *((cell.tap, images.read_image(str(cell.path))) for cell in cells)]
    return draw_contact_sheet(pictures, settings.cell, settings.columns)
