"""Split long shots inside, where nothing was cut: the second part begins with some frames of warm-up, and its dream
fades in over the last frames of the first part.

    first part   ────────────┐ state
    seam chunk               └▶ ──────────  residual of the first part, fading out
    second part        ╌╌╌╌╌╌╌ warm-up ╌╌╌  residual of the second part, fading in ──▶ ─────────

Only residuals are mixed: the picture below is the same on both sides, so nothing ghosts. Figures:
docs/notebook/2026-11-27-seams-in-a-shot.md.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, error_text
from streamdream.media.frame import Frame, Picture
from streamdream.media.sinks.base import NullSink
from streamdream.render.plan import STATE_CUT, STATE_NONE, STATE_WARM_UP, Chunk, warm_up_file
from streamdream.system.atomic_file import write_file

if TYPE_CHECKING:
    from streamdream.dream.state import DreamState
    from streamdream.media.sinks.base import Sink
    from streamdream.render.chunk_writer import ChunkWriter
    from streamdream.render.scene_scan import Scan

WARM_UP_FRAMES, FADE_FRAMES = 64, 24
"""With these the seam flickers no more than the shot itself."""
MIN_PART_FRAMES = 2 * WARM_UP_FRAMES
"""Shorter parts would spend most of their time on the warm-up."""
Residuals = NDArray[np.float32]
"""[N, h, w, 3]: of frames in a row, on the field."""


def split_long_shots(scan: Scan, workers: int) -> tuple[Chunk, ...]:
    """The chunks of the scan, with seams in shots that are much longer than the share of one worker."""
    share = max(len(scan.source_pts) / workers, MIN_PART_FRAMES)
    chunks = list(scan.chunks)
    starts = [chunk.first_frame for chunk in chunks if chunk.state_before in (STATE_NONE, STATE_CUT)]
    for start, end in zip(starts, [*starts[1:], len(scan.source_pts)], strict=True):
        parts = round((end - start) / share)
        for number in range(1, parts):
            chunks = _with_seam(chunks, scan, start + round(number * (end - start) / parts))
    return tuple(_renumbered(chunks))


def _with_seam(chunks: list[Chunk], scan: Scan, frame: int) -> list[Chunk]:
    """With a seam that begins with the chunk which is nearest to that frame, where there is room for it."""
    inside = [chunk for chunk in chunks if chunk.state_before not in (STATE_NONE, STATE_CUT, STATE_WARM_UP)]
    seam = min(inside, key=lambda chunk: abs(chunk.first_frame - frame), default=None)
    if seam is None:
        return chunks
    second_frame = seam.first_frame + FADE_FRAMES
    rest = [chunk for chunk in chunks if chunk.first_frame > second_frame]
    before = [chunk for chunk in chunks if chunk.first_frame < seam.first_frame]
    first_of_shot = max(chunk.first_frame for chunk in before if chunk.state_before in (STATE_NONE, STATE_CUT))
    shot_end = next((chunk.first_frame for chunk in rest if chunk.state_before == STATE_CUT), len(scan.source_pts))
    removed = [chunk for chunk in chunks if seam.first_frame < chunk.first_frame <= second_frame]
    if (second_frame - WARM_UP_FRAMES < first_of_shot or second_frame + FADE_FRAMES > shot_end or seam.blend
            or any(chunk.blend or chunk.state_before in (STATE_CUT, STATE_WARM_UP) for chunk in removed)):
        return chunks
    second = Chunk(0, second_frame, int(scan.source_pts[second_frame]), None, 0, STATE_WARM_UP)
    return [*before, replace(seam, blend="next"), second, *rest]


def _renumbered(chunks: Sequence[Chunk]) -> list[Chunk]:
    """With the numbers, and the names of state files, that follow from their order."""
    result: list[Chunk] = []
    for number, chunk in enumerate(chunks):
        state = chunk.state_before
        if state not in (STATE_NONE, STATE_CUT, STATE_WARM_UP):
            state = result[-1].state_file
        blend = warm_up_file(number + 1) if chunk.blend else ""
        result.append(replace(chunk, number=number, state_before=state, blend=blend))
    return result


class WarmUp(NullSink):
    """Sink and checkpoints of a part that begins with ``frames`` of warm-up, which are not written.

    The residuals of the last ``FADE_FRAMES`` of them are kept in ``path``, before anything is written.
    """

    def __init__(self, frames: int, path: Path, sink: Sink, writer: ChunkWriter) -> None:
        super().__init__()
        self._left, self._path, self._sink, self._writer = frames, path, sink, writer
        self._residuals: list[Residuals] = []

    def before_frame(self, frame: Frame) -> None:
        if not self._left:
            self._writer.before_frame(frame)

    def before_write(self, state: DreamState, frozen_frame: Frame | None) -> None:
        if not self._left:
            self._writer.before_write(state, frozen_frame)
        elif self._left <= FADE_FRAMES:
            residual = state.to_host().residual
            if residual is not None:
                self._residuals.append(residual)

    def write(self, image: Picture, frame: Frame) -> None:
        if not self._left:
            self._sink.write(image, frame)
            return
        self._left -= 1
        if not self._left:
            save_residuals(self._path, np.stack(self._residuals))

    def finish(self) -> None:
        self._sink.finish()

    def abort(self) -> None:
        self._sink.abort()


class Crossfade:
    """What is shown in a seam: ``shown_residual`` of a ``DreamOptions``."""

    def __init__(self, first_frame: int, second: Residuals) -> None:
        """``second`` are the residuals of the part that fades in, from ``first_frame`` on."""
        self._first_frame, self._second = first_frame, second

    def __call__(self, index: int, residual: NDArray[np.float32]) -> NDArray[np.float32]:
        number = index - self._first_frame
        return blend(residual, self._second[number], (number + 1) / (len(self._second) + 1))


def blend(first: NDArray[np.float32], second: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Mix two residuals, ``weight`` 0..1 of the second, so that the mixture is as strong as they are: two dreams of one
    picture are much less than fully correlated, and their plain mean is weaker than both.
    """
    energies = float(np.mean(first * first)), float(np.mean(second * second))
    mixed = (1 - weight) * first + weight * second
    energy = float(np.mean(mixed * mixed))
    target = (1 - weight) * energies[0] + weight * energies[1]
    return mixed * np.float32((target / energy) ** 0.5) if energy else mixed


def save_residuals(path: Path, residuals: Residuals) -> None:
    from safetensors.numpy import save

    write_file(str(path), save({"residuals": np.ascontiguousarray(residuals)}), overwrite=True)


def load_residuals(path: Path) -> Residuals:
    """Raises SinkError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)["residuals"]
    except (OSError, SafetensorError, KeyError) as error:
        raise SinkError(f"{path} is damaged ({error_text(error)}); --restart starts over") from None
