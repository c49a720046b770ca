"""Split long shots inside, where nothing was cut: the second part begins with some frames of warm-up, and its dream
fades in over the last frames of the first part.

    first part   ────────────┐ state
    seam chunk               └▶ ──────────  residual of the first part, fading out
    second part        ╌╌╌╌╌╌╌ warm-up ╌╌╌  residual of the second part, fading in ──▶ ─────────

Only residuals are mixed: the picture below is the same on both sides, so nothing ghosts. Figures:
docs/notebook/2026-11-27-seams-in-a-shot.md.
"""
from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
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
OVERLAP_FRAMES = WARM_UP_FRAMES - FADE_FRAMES
"""Of the warm-up, those that the part before shows; in the others it fades out, in the chunk of the seam."""
LIMIT_RATIO, NEARLY = 1.05, 1.01
"""Plans are compared whose longest parts differ by the first; ends that differ by less than the second are alike."""
Residuals = NDArray[np.float32]
"""[N, h, w, 3]: of frames in a row, on the field."""


def split_long_shots(scan: Scan, slots: int) -> tuple[Chunk, ...]:
    """The chunks of the scan, with seams in long shots, so that ``slots`` which render at once end soonest."""
    starts = [chunk.first_frame for chunk in scan.chunks if chunk.state_before in (STATE_NONE, STATE_CUT)]
    ends = [*starts[1:], len(scan.source_pts)]
    counts = part_counts([end - start for start, end in zip(starts, ends, strict=True)], slots)
    seams = {frame for start, end, parts in zip(starts, ends, counts, strict=True)
             for frame in seam_frames(start, end, parts)}
    return tuple(_renumbered(_with_seams(scan, seams))) if seams else scan.chunks


def part_counts(lengths: Sequence[int], slots: int) -> list[int]:
    """Into how many parts to split shots of so many frames. Of plans that end equally soon, that with fewest seams."""
    longest, share = max(lengths), max(sum(lengths) / slots, MIN_PART_FRAMES)
    plans = [[1] * len(lengths)]
    limit = float(longest)
    while limit > share:
        limit = max(limit / LIMIT_RATIO, share)
        plans.append([_parts_within(length, limit) for length in lengths])
    ends = [_end([cost for length, parts in zip(lengths, plan, strict=True) for cost in _costs(length, parts)], slots)
            for plan in plans]
    return next(plan for plan, end in zip(plans, ends, strict=True) if end <= min(ends) * NEARLY)


def seam_frames(start: int, end: int, parts: int) -> list[int]:
    """Where the seams of a shot begin, so that all of its parts take the same time."""
    cost = _costs(end - start, parts)[0] - FADE_FRAMES if parts > 1 else 0
    return [start + round(OVERLAP_FRAMES + number * (cost - OVERLAP_FRAMES)) for number in range(1, parts)]


def _costs(length: int, parts: int) -> list[float]:
    """Frames that are dreamed for each part, warm-up and the seam behind it included."""
    if parts == 1:
        return [length]
    return [(length + OVERLAP_FRAMES * (parts - 1)) / parts + FADE_FRAMES] * parts


def _parts_within(length: int, limit: float) -> int:
    """The fewest parts of which none takes longer than ``limit`` frames, as far as parts may be that short."""
    most = max(1, round(length / MIN_PART_FRAMES))
    return next((parts for parts in range(1, most) if _costs(length, parts)[0] <= limit), most)


def _end(costs: Sequence[float], slots: int) -> float:
    """When the last part is done, where each slot that is free takes the longest that is left."""
    loads = [0.0] * slots
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(loads, loads[0] + cost)
    return max(loads)


def _with_seams(scan: Scan, seams: Collection[int]) -> list[Chunk]:
    """A seam chunk begins at each of these frames. The chunks behind a seam are found by decoding from one before."""
    known = {chunk.first_frame: chunk for chunk in scan.chunks}
    inside_seams = {frame + offset for frame in seams for offset in range(1, FADE_FRAMES + 1)}
    added: dict[int, Chunk] = {}
    for frame in seams:
        for first, state, blend in ((frame, "", "next"), (frame + FADE_FRAMES, STATE_WARM_UP, "")):
            chunk = known.get(first) or Chunk(0, first, int(scan.source_pts[first]), None, 0, "")
            added[first] = replace(chunk, state_before=state, blend=blend)
    kept = {first: chunk for first, chunk in known.items() if first not in inside_seams}
    return [chunk for _, chunk in sorted((kept | added).items())]


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
