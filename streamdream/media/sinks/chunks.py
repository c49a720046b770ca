"""Chunks: parts of a video as whole files, each encoded on its own, and their joining without encoding again.

    pictures ──▶ ChunkEncoder ──▶ chunk-00000.nut + its times ──▶ join_chunks ──▶ VideoOutput

A chunk is a closed group: its encoder begins with it and is emptied at its end. NUT stores the packets of nearly every
encoder byte for byte; exact times are kept beside it, in the order of the packets.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError
from streamdream.media.pyav import open_av
from streamdream.media.sinks.encoders import Container, find_codec, supported_codecs
from streamdream.media.sinks.pixel_formats import wants_hdr
from streamdream.media.sinks.video_encoder import VideoEncoder
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import AtomicFile

if TYPE_CHECKING:
    from streamdream.media.sinks.video_output import VideoOutput
    from streamdream.media.sources.video import Source

Ticks = NDArray[np.int64]
STORAGE_FORMAT = "nut"
LOSSLESS_CODEC = "ffv1"
ONE_PASS_CODECS = {"gif", "apng", "libwebp_anim"}
"""Encoders whose packets cannot be joined: their chunks are lossless, and encoded when they are joined.

So are those of VP8 and VP9 with alpha, which is beside the packets.
"""


@dataclass(frozen=True)
class ChunkTimes:
    """Of each packet of a chunk, in the order of the file, in ticks of the encoder."""

    pts: Ticks
    durations: Ticks


class ChunkFile(Protocol):
    """Pictures of one chunk: a ``ChunkEncoder`` or an ``ImageFolder``."""

    def add(self, picture: Any, pts: int) -> None: ...
    def finish(self, end_pts: int) -> ChunkTimes: ...
    def discard(self) -> None: ...


@dataclass(frozen=True)
class ChunkFormat:
    """How the chunks of a video are stored; ``kind`` is the container of the result."""

    kind: Container
    settings: RenderSettings
    one_pass: bool
    format: str

    @classmethod
    def of(cls, kind: Container, source: Source, settings: RenderSettings) -> ChunkFormat:
        codec = find_codec(settings.codec, kind, wants_hdr(source, settings), source.width).name
        one_pass = codec in ONE_PASS_CODECS or (codec.startswith("libvpx") and settings.pixel_format.startswith("yuva"))
        if one_pass:  # only the clock of the result counts for its chunks
            codec, settings = LOSSLESS_CODEC, RenderSettings(codec=LOSSLESS_CODEC)
            kind = replace(kind, format=STORAGE_FORMAT, codec=LOSSLESS_CODEC, tags_color=True, shortest=Fraction(0),
                           tick=None if kind.shortest else kind.tick)
        format = STORAGE_FORMAT if codec in supported_codecs(STORAGE_FORMAT) else kind.format
        return cls(kind, settings, one_pass, format)


class ChunkEncoder:
    """Writes one chunk; ``path`` appears when it is whole. Raises as ``VideoOutput`` does."""

    def __init__(self, path: Path, source: Source, chunk_format: ChunkFormat) -> None:
        self.file = AtomicFile(str(path), overwrite=True)
        self._pts: list[int] = []
        self._durations: list[int] = []
        self._start_pts: int | None = None
        try:
            self._container = open_av(str(self.file.path), "w", format=chunk_format.format)
            self.encoder = VideoEncoder(self._container, chunk_format.kind, str(path), source, chunk_format.settings)
            self._container.start_encoding()
        except BaseException:
            self.file.discard()
            raise

    def add(self, picture: Any, pts: int) -> None:
        self._start_pts = pts if self._start_pts is None else self._start_pts
        self._mux(self.encoder.add(picture, pts))

    def finish(self, end_pts: int) -> ChunkTimes:
        """End the last picture at ``end_pts``, and give the file its name."""
        self._mux(self.encoder.finish(end_pts))
        self._container.close()
        self.file.commit()
        return ChunkTimes(np.array(self._pts, np.int64), np.array(self._durations, np.int64))

    def discard(self) -> None:
        self.file.discard()

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._pts.append(packet.pts)
            self._durations.append(packet.duration)
            packet.pts -= self._start_pts
            packet.dts = packet.pts if packet.dts is None else packet.dts - self._start_pts
            self._container.mux_one(packet)


def join_chunks(output: VideoOutput, chunks: Sequence[tuple[Path, ChunkTimes]], one_pass: bool, end_pts: int) -> None:
    """Write all chunks into ``output``, and close it. ``end_pts`` is the end of the last picture.

    Raises SinkError for a chunk that does not hold what it held.
    """
    if one_pass:
        _encode_chunks(output, chunks, end_pts)
        return
    times = ChunkTimes(np.concatenate([times.pts for _, times in chunks]),
                       np.concatenate([times.durations for _, times in chunks]))
    dts = decode_times(times.pts)
    pending: Any = None
    for number, packet in enumerate(packet for path, times in chunks for packet in _read_packets(path, times)):
        packet.stream, packet.time_base = output.encoder.stream, output.encoder.tick
        packet.pts, packet.dts = int(times.pts[number]), int(dts[number])
        packet.duration = int(times.durations[number])
        if pending is not None:
            output.mux([pending])
        pending = packet
    output.mux_last([pending], end_pts)


def decode_times(pts: Ticks) -> Ticks:
    """Decode timestamps of packets with these presentation timestamps, in the order of decoding.

    They are the presentation timestamps in ascending order, late by the deepest reordering; the first ones, which have
    none before them, go back from the start by as much as x264 would.
    """
    ascending = np.sort(pts)
    depth = int(np.max(np.arange(len(pts)) - np.searchsorted(ascending, pts), initial=0))
    depth = min(depth, len(pts) - 1)
    delay = ascending[depth] - ascending[0]
    return np.concatenate([ascending[:depth] - delay, ascending[:len(pts) - depth]])


def _read_packets(path: Path, times: ChunkTimes) -> Iterator[Any]:
    count = 0
    with open_av(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                count += 1
                if count <= len(times.pts):
                    yield packet
    if count != len(times.pts):
        raise SinkError(f"{path} is damaged: it holds {count} of {len(times.pts)} pictures")


def _encode_chunks(output: VideoOutput, chunks: Sequence[tuple[Path, ChunkTimes]], end_pts: int) -> None:
    for path, times in chunks:
        count = 0
        with open_av(str(path)) as container:
            for picture in container.decode(video=0):
                output.mux(output.encoder.add(picture, int(times.pts[count])))
                count += 1
        if count != len(times.pts):
            raise SinkError(f"{path} is damaged: it holds {count} of {len(times.pts)} pictures")
    output.mux_last(output.encoder.finish(end_pts), end_pts)
