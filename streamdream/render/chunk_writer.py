"""Write dreamed frames as the chunks of a plan; each is in the plan as soon as it and the state after it are whole."""
from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from streamdream.media.frame import Frame, Picture, picture_checksum
from streamdream.render.plan import STATE_CUT, Chunk
from streamdream.render.work_folder import ChunkRecord, ChunkStore
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from streamdream.dream.state import DreamState
    from streamdream.media.sinks.chunks import ChunkFile
    from streamdream.media.sinks.picture_clock import PictureClock
    from streamdream.media.sources.video import Source
    from streamdream.render.chunked_output import ChunkedOutput


@dataclass(frozen=True)
class Item:
    """A dreamed frame on its way into its chunk."""

    picture: Any
    seconds: Fraction
    source_pts: int
    state: DreamState
    """After it."""
    frozen_frame: Frame | None
    start: Chunk | None
    """The chunk that begins with it, where one does."""


class ChunkWriter:
    """The ``Writer`` of a ``ThreadedSink``: writes the chunks of ``folder.plan`` from ``first`` on.

    It is the ``Checkpoints`` of the same render, too. ``cuts`` are those before its first frame.
    """

    kept = ""

    def __init__(self, folder: ChunkStore, source: Source, output: ChunkedOutput, clock: PictureClock, first: Chunk,
                 cuts: int, recipe: str = "") -> None:
        self.partial: OutputTarget = folder.target
        self.warnings: list[str] = []
        self.bytes_written = 0
        self._folder, self._source, self._output, self._clock = folder, source, output, clock
        self._recipe = recipe
        # Used by the caller's thread:
        self._next_chunk, self._next_start, self._next_index = first, True, first.first_frame
        self._state: DreamState | None = None
        self._frozen_frame: Frame | None = None
        # Used by the thread of the sink:
        self._chunk = first
        self._cuts = cuts - (first.state_before == STATE_CUT)
        self._file: ChunkFile | None = None
        self._source_pts: list[int] = []
        self._last: Item | None = None

    def before_frame(self, frame: Frame) -> None:
        """It may begin a chunk that is not planned yet."""
        plan = self._folder.plan
        assert plan is not None
        if self._next_start and self._next_index != self._next_chunk.first_frame:
            before = self._next_chunk
            position = frame.position.to_json() if frame.position else None
            self._next_chunk = plan.next_chunk(before) or Chunk(
                before.number + 1, self._next_index, frame.pts, position, picture_checksum(frame),
                before.state_file)

    def before_write(self, state: DreamState, frozen_frame: Frame | None) -> None:
        self._state, self._frozen_frame = state, frozen_frame

    def prepare(self, image: Picture, frame: Frame) -> Item:
        plan = self._folder.plan
        assert plan is not None and self._state is not None
        start = self._next_chunk if self._next_start else None
        seconds = frame.pts * Fraction(*frame.time_base)
        item = Item(self._output.prepare(image), seconds, frame.pts, self._state, self._frozen_frame, start)
        self._next_start = plan.is_last_of_chunk(self._next_chunk, self._next_index)
        self._next_index += 1
        return item

    def write(self, item: Item) -> None:
        pts = self._clock(item.seconds)
        if item.start is not None:
            if self._file is not None:
                self._close(pts, item.start)
            self._chunk, self._source_pts = item.start, []
            path = self._folder.path / (item.start.name + self._output.suffix)
            self._file = self._output.open_chunk(path, item.start, self._recipe)
        assert self._file is not None
        self._file.add(item.picture, pts)
        self._source_pts.append(item.source_pts)
        self._last = item

    def complete(self) -> None:
        plan = self._folder.plan
        assert plan is not None
        following = plan.next_chunk(self._chunk)
        if following is None:
            self._close(self._clock.end(self._source), None)
        else:
            self._close(self._clock(following.from_pts * Fraction(*plan.time_base)), following)

    def _close(self, end_pts: int, following: Chunk | None) -> None:
        """Name the file of the chunk, then the state after it, then write both into the plan."""
        assert self._file is not None and self._last is not None
        state = self._last.state.to_host()
        times = self._file.finish(end_pts)
        self._file = None
        self._folder.save_record(self._chunk, ChunkRecord(state, times, np.array(self._source_pts, np.int64),
                                                          self._last.frozen_frame))
        size, digest = self._folder.measure(self._chunk)
        done = replace(self._chunk, frames=len(self._source_pts), cuts=state.cuts - self._cuts, end_pts=end_pts,
                       bytes=size, sha256=digest)
        self._cuts = state.cuts
        self.bytes_written += size
        self._folder.add_chunk(done, following, self._source.warnings)

    def commit(self) -> None:
        """Every chunk is named already."""

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()

    def keep(self) -> None:
        self.discard()
