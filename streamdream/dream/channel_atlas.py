"""The channel atlas: what each channel of a layer dreams, alone, from noise; a sheet of small pictures for each layer.

Single channels as objectives of an ascent: Olah, Mordvintsev, Schubert 2017, "Feature Visualization"
(distill.pub/2017/feature-visualization). Many pictures are dreamed at a time, one for each channel. What is done is
kept, so a sheet that was interrupted goes on where it was.

``python -m streamdream.dream.channel_atlas`` makes the sheets in the package, about 20 minutes on one core; a layer
whose sheet exists is skipped.
"""
from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.step import NATURAL_COLORS, apply_step, shape_gradient, shift_circular
from streamdream.ascent.terms import Activations
from streamdream.backends.eager import Eager
from streamdream.backends.precision import DTYPES
from streamdream.errors import SinkError, error_text
from streamdream.media import images
from streamdream.models import channel_sheets, registry
from streamdream.models.channel_sheets import CELL, COLUMNS
from streamdream.models.network import Features, Network
from streamdream.settings_parsing import LayerWeight
from streamdream.system.atomic_file import write_file

if TYPE_CHECKING:
    from streamdream.models import Model

Cells = NDArray[np.uint8]
"""[N, CELL, CELL, 3] RGB."""

OCTAVES = (0.625, 1.0)
STEPS = (12, 16)
"""Of each octave."""
STEP_SIZE, JITTER = 0.05, 8
MAX_MOVE = 3.0
"""Of a value in a step, in step sizes. The mean magnitude of a step is one, so where few places excite a channel, they
would become noise of full contrast."""
MARGIN = 3 / 32
"""Of the side, cut off at each edge: there the network sees its own padding."""
CONTRAST = 0.33
"""Standard deviation of a cell, of [-1, 1]."""
NOISE_CONTRASTS, NOISES = (0.2, 0.4, 0.7), 64
BATCH = 16
SEED = 5
WEBP_QUALITY = 60
LOW_STRIDE = 8
LOW_SHAPE, HIGH_SHAPE = GradientShape(1.0, 1.0, 1.2, 4), GradientShape(1.5, 1.0, 0.9, 4)
"""Of layers up to that stride, whose fine patterns become coloured noise sooner, and of others."""
FORMULA = 1
"""Its version: parts made by another one are not gone on with."""


class ChannelDreamer:
    """Dreams single channels of the layer ``tap``. ``device`` and ``precision`` are as in StreamSettings.

    ``on_step`` is called before each step and may raise. Raises ModelError where the weights are missing, UnknownName
    for a wrong tap, SettingsError for a wrong device.
    """

    def __init__(self, model: Model, tap: str, device: str = "auto", precision: str = "auto",
                 on_step: Callable[[], None] = lambda: None) -> None:
        self.tap = model.resolve_tap(tap)
        info, eager = model.taps()[self.tap], Eager(model, device, precision)
        self.count, self.precision = info.channels, eager.precision
        self._model, self._device, self._on_step = model, eager.device, on_step
        self._network = Network(model.nodes(), model.load_weights(), [self.tap], eager.device, DTYPES[eager.precision])
        low = info.stride <= LOW_STRIDE
        side = 96 if low else 128 if info.stride <= 16 else 192
        self._sides = [max(int(side * octave), info.min_size) for octave in OCTAVES]
        self._shape = LOW_SHAPE if low else HIGH_SHAPE
        self._noise: Tensor | None = None

    def silent(self) -> list[int]:
        """The channels that no noise excites: they have no gradient there."""
        return [int(channel) for channel in (self._noise_scores().amax(0) <= 0).nonzero()]

    def dream(self, channels: Sequence[int], others: Cells | None = None) -> Cells:
        """The pictures of those channels. They begin from noise, or from the one of ``others``, faded, that excites a
        channel most. One that nothing excites is grey.
        """
        picture = self._starts(channels, others)
        index, rows = torch.tensor(channels, device=self._device), torch.arange(len(channels), device=self._device)
        generator = torch.Generator().manual_seed(SEED)
        term = Activations((LayerWeight(self.tap, 1.0),))
        moved = torch.zeros(len(channels), dtype=torch.bool, device=self._device)
        for side, steps in zip(self._sides, STEPS, strict=True):
            picture = F.interpolate(picture, size=(side, side), mode="bicubic").clamp(-1, 1)
            for number in range(steps):
                self._on_step()
                down, right = torch.randint(-JITTER, JITTER + 1, (2,), generator=generator).tolist()
                picture = shift_circular(picture, (down, right))
                gradient = self._gradient(picture, rows, index)
                moved |= gradient.abs().amax((1, 2, 3)) > 0
                shaped = shape_gradient(gradient, term, self._shape)
                size = STEP_SIZE * (1 - 0.5 * number / steps)
                move = apply_step(picture, [shaped], [(term, 1.0)], size) - picture
                moved_picture = picture + move.clamp(-MAX_MOVE * size, MAX_MOVE * size)
                picture = shift_circular(moved_picture, (-down, -right))
        return self._finish(picture, moved)

    def _gradient(self, picture: Tensor, rows: Tensor, channels: Tensor) -> Tensor:
        """Of the sum of the means of each picture's own channel."""
        def value(features: Features) -> list[Tensor]:
            return [features[self.tap][rows, channels].float().mean((1, 2)).sum()]

        return self._model.to_input.gradient(self._network.gradients(self._network_input(picture), value)[0])

    def _network_input(self, picture: Tensor) -> Tensor:
        return self._model.to_input(picture).contiguous(memory_format=torch.channels_last)

    def _scores(self, pictures: Tensor) -> Tensor:
        """The mean of each channel in each picture, [N, C]."""
        return torch.cat([self._network(self._network_input(part))[self.tap].float().mean((2, 3))
                          for part in torch.split(pictures, BATCH)])

    def _noise_pictures(self) -> Tensor:
        noise = soft_noise(NOISES, self._sides[0]).to(self._device)
        return torch.cat([(noise * contrast).clamp(-1, 1) for contrast in NOISE_CONTRASTS])

    def _noise_scores(self) -> Tensor:
        if self._noise is None:
            self._noise = self._scores(self._noise_pictures())
        return self._noise

    def _starts(self, channels: Sequence[int], others: Cells | None) -> Tensor:
        if others is None:
            pictures, scores = self._noise_pictures(), self._noise_scores()
            quiet = scores[:NOISES]
            scores = torch.where(quiet.amax(0) > 0, torch.cat([quiet, torch.full_like(scores[NOISES:], -1)]), scores)
        else:
            values = torch.from_numpy(others).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            faded = F.interpolate(values, size=(self._sides[0],) * 2, mode="bicubic")
            pictures = torch.cat([faded * 0.4, faded])
            scores = self._scores(pictures)
        return pictures[scores[:, list(channels)].argmax(0)]

    def _finish(self, picture: Tensor, moved: Tensor) -> Cells:
        cut = round(picture.shape[-1] * MARGIN)
        cell = F.interpolate(picture[..., cut:-cut, cut:-cut], size=(CELL, CELL), mode="bilinear", antialias=True)
        cell = cell - 0.5 * cell.mean((1, 2, 3), keepdim=True)
        cell = cell / (cell.std((1, 2, 3), keepdim=True) + 1e-6) * CONTRAST * moved[:, None, None, None]
        pixels: Cells = ((cell + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return pixels


def soft_noise(count: int, side: int) -> Tensor:
    """[count, 3, side, side] with a standard deviation of 1: clouds of all sizes, in the colours of photographs."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.zeros(count, 3, side, side)
    for cells, weight in ((4, 0.5), (8, 0.35), (16, 0.25), (side, 0.15)):
        part = torch.randn(count, 3, cells, cells, generator=generator)
        noise += weight * F.interpolate(part, size=(side, side), mode="bicubic")
    colors = torch.tensor(NATURAL_COLORS)
    noise = torch.einsum("ij,njhw->nihw", colors @ colors.T / 0.2, noise)
    return noise / noise.std((1, 2, 3), keepdim=True)


def make_sheet(dreamer: ChannelDreamer, path: Path, on_cells: Callable[[int], None] = lambda done: None) -> None:
    """Dream every channel of the layer into the sheet ``path``, a WebP file that appears when it is whole.

    ``on_cells`` gets the number of channels done. Until all are, parts are kept in a hidden folder beside ``path``, and
    the next call goes on with them. Raises SinkError, and what the dreamer's ``on_step`` raises.
    """
    key = hashlib.sha256(f"{FORMULA} {dreamer.precision} {dreamer.count}".encode()).hexdigest()[:8]
    parts = path.with_name(f".{path.stem}.{key}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{parts.parent}: {error_text(error)}") from None
    cells, done = np.full((dreamer.count, CELL, CELL, 3), 128, np.uint8), 0
    for number, (channels, from_others) in enumerate(_batches(dreamer)):
        part = parts / f"{number:03d}.npy"
        pictures = _read_part(part, len(channels))
        if pictures is None:
            pictures = dreamer.dream(channels, cells if from_others else None)
            _write_part(part, pictures)
        cells[channels] = pictures
        done += len(channels)
        on_cells(done)
    images.write_image(str(path), join_cells(cells), WEBP_QUALITY, overwrite=True)
    for folder in path.parent.glob(f".{path.stem}.*.parts"):
        shutil.rmtree(folder, ignore_errors=True)


def _read_part(path: Path, count: int) -> Cells | None:
    """None where there is none, or a damaged one."""
    try:
        cells: Cells = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return cells if cells.shape == (count, CELL, CELL, 3) and cells.dtype == np.uint8 else None


def _write_part(path: Path, cells: Cells) -> None:
    data = io.BytesIO()
    np.save(data, cells)
    write_file(str(path), data.getvalue(), overwrite=True)


def _batches(dreamer: ChannelDreamer) -> Iterator[tuple[list[int], bool]]:
    """Channels that are dreamed together; those that noise does not excite last, from the pictures of the others."""
    silent = dreamer.silent()
    for channels, from_others in ((sorted(set(range(dreamer.count)) - set(silent)), False), (silent, True)):
        for at in range(0, len(channels), BATCH):
            yield channels[at:at + BATCH], from_others


def join_cells(cells: Cells, columns: int = COLUMNS) -> NDArray[np.uint8]:
    """[N, H, W, 3] -> one picture, in rows; what is missing in the last one is grey."""
    missing = -len(cells) % columns
    filled = np.concatenate([cells, np.full((missing, *cells.shape[1:]), 128, np.uint8)])
    height, width = cells.shape[1:3]
    grid = filled.reshape(-1, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(-1, columns * width, 3))


def make_shipped(model_name: str = "inception_v3") -> None:
    """Make the sheets in the package, of every block."""
    model = registry.get(model_name)
    for tap in model.blocks():
        path = channel_sheets.SHIPPED / model_name / channel_sheets.file_name(tap)
        if not path.exists():
            make_sheet(ChannelDreamer(model, tap), path)


if __name__ == "__main__":
    make_shipped()
