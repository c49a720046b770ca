"""Encode pictures as a render would, and keep nothing but the sizes."""
from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.media.images import WRITABLE, encode_image
from streamdream.media.input_container import is_pattern
from streamdream.media.pyav import open_av
from streamdream.media.sinks.base import NullSink
from streamdream.media.sinks.chunks import ChunkFormat
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.picture_clock import new_clock
from streamdream.media.sinks.picture_format import PictureFormat
from streamdream.media.sinks.threaded import ThreadedSink
from streamdream.media.sinks.video_encoder import VideoEncoder, to_video_frame
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamdream.media.frame import Frame, Picture
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob

AHEAD_PICTURES, AHEAD_BYTES = 10, 64 << 20
"""Most that follow a sample as its continuation: x264 gives the last pictures of a video fewer bits."""
HEADER_BYTES = 4000
"""Of a file: headers, index, recipe."""
MIN_KEYFRAMES = 3
"""From which the distance of keyframes is known; else it is that of the chunks."""


@dataclass
class EncodedSizes:
    """What became of the pictures of all samples."""

    keyframes: list[int] = field(default_factory=list)
    """Bytes of each packet that is one."""
    others: list[int] = field(default_factory=list)
    samples: int = 0
    stored_bytes: int = 0
    """Of all pictures in chunks, where those are encoded in another way than the result."""
    second_pass_seconds: float = 0.0
    """Time to encode all pictures once more, as it happens when such chunks are joined."""
    flush_seconds: float = 0.0
    """Time to empty the encoders at the end of the samples."""

    @property
    def pictures(self) -> int:
        return len(self.keyframes) + len(self.others)

    def bytes_per_frame(self, chunk_frames: int) -> float:
        """In a long video, where keyframes are rarer than in samples, each of which begins with one."""
        if not self.others:
            return sum(self.keyframes) / max(self.pictures, 1)
        keyframe, other = sum(self.keyframes) / len(self.keyframes), sum(self.others) / len(self.others)
        distance = chunk_frames
        if len(self.keyframes) >= MIN_KEYFRAMES * self.samples:
            distance = self.pictures // len(self.keyframes)
        return other + (keyframe - other) / distance

    @property
    def stored_bytes_per_frame(self) -> float:
        return self.stored_bytes / max(self.pictures, 1)


def open_sample_sink(job: RenderJob, source: Source, sizes: EncodedSizes, goes_on: bool) -> Sink:
    """A sink for one sample, which adds to ``sizes``; with ``goes_on`` the video does not end with it.

    Raises UsageError or UnknownName for wrong settings.
    """
    suffix = Path(job.output).suffix.lower()
    if suffix in WRITABLE and is_pattern(job.output):
        return ThreadedSink(_PictureWriter(job, source, sizes))
    return ThreadedSink(_VideoWriter(job, source, sizes, goes_on)) if suffix in CONTAINERS else NullSink()


class _SampleWriter:
    """A ``Writer`` without a file."""

    kept, bytes_written = "", 0

    def __init__(self, output: str, sizes: EncodedSizes) -> None:
        self.warnings: list[str] = []
        self._target, self._sizes = OutputTarget(output), sizes
        sizes.samples += 1

    @property
    def partial(self) -> OutputTarget:
        return self._target

    def complete(self) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...
    def keep(self) -> None: ...


class _PictureWriter(_SampleWriter):
    def __init__(self, job: RenderJob, source: Source, sizes: EncodedSizes) -> None:
        super().__init__(job.output, sizes)
        self._format = PictureFormat.of(job.output, source, job.run.render)

    def prepare(self, image: Picture, frame: Frame) -> NDArray[Any]:
        return self._format(image)

    def write(self, item: NDArray[Any]) -> None:
        name = self._target.name
        self._sizes.keyframes.append(len(encode_image(item, Path(name).suffix, name)))


class _VideoWriter(_SampleWriter):
    def __init__(self, job: RenderJob, source: Source, sizes: EncodedSizes, goes_on: bool) -> None:
        super().__init__(job.output, sizes)
        self._job, self._source, self._kind = job, source, CONTAINERS[Path(job.output).suffix.lower()]
        self._format = ChunkFormat.of(self._kind, source, job.run.render)
        self._clock = new_clock(self._kind, source, job.run.render)
        self._container = open_av(io.BytesIO(), "w", format=self._format.format)
        self._encoder = VideoEncoder(self._container, self._format.kind, job.output, source, self._format.settings)
        self._pictures: list[tuple[Any, int]] = []
        """All of them for a second pass, else the last few."""
        self._end_pts = 0
        picture_bytes = 3 * source.width * source.height
        self._ahead = max(min(AHEAD_PICTURES, AHEAD_BYTES // picture_bytes), 1) if goes_on else 0

    def prepare(self, image: Picture, frame: Frame) -> tuple[Any, Fraction]:
        return to_video_frame(image), frame.pts * Fraction(*frame.time_base)

    def write(self, item: tuple[Any, Fraction]) -> None:
        picture, pts = item[0], self._clock(item[1])
        self._count(self._encoder.add(picture, pts))
        self._pictures.append((picture, pts))
        if not self._format.one_pass:
            del self._pictures[:-self._ahead - 1]

    def complete(self) -> None:
        self._end_pts = self._clock.end(self._source)
        if self._format.one_pass:
            self._count(self._encoder.finish(self._end_pts))
            self._encode_again()
            return
        gap, end_pts = max(self._clock.last_gap, 1), self._end_pts
        for picture, _ in self._pictures[-2::-1] if self._ahead else ():  # backwards, as if the motion turned
            self._count(self._encoder.add(picture, end_pts))
            end_pts += gap
        began = time.perf_counter()
        self._count(self._encoder.finish(end_pts))
        self._sizes.flush_seconds += time.perf_counter() - began

    def _count(self, packets: list[Any]) -> None:
        if self._format.one_pass:
            self._sizes.stored_bytes += sum(packet.size for packet in packets)
        else:
            self._add_sizes(packets)

    def _encode_again(self) -> None:
        began = time.perf_counter()
        with open_av(io.BytesIO(), "w", format=self._kind.format) as container:
            encoder = VideoEncoder(container, self._kind, self._job.output, self._source, self._job.run.render)
            for picture, pts in self._pictures:
                self._add_sizes(encoder.add(picture, pts))
            self._add_sizes(encoder.finish(self._end_pts))
        self._pictures = []
        self._sizes.second_pass_seconds += time.perf_counter() - began

    def _add_sizes(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._end_pts and packet.pts >= self._end_pts:
                continue
            (self._sizes.keyframes if packet.is_keyframe else self._sizes.others).append(packet.size)
