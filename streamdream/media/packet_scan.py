"""Count the pictures of a file, and the bytes of its streams, without decoding."""
from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction

from streamdream.media.input_container import TickRange, TimeRange, clock_origin, main_video_stream, open_file
from streamdream.media.pyav import fraction


@dataclass(frozen=True)
class PacketScan:
    """Of a time range of a file."""

    pictures: int
    stream_bytes: dict[int, int]
    """Of each stream, by its index."""
    complete: bool
    """Whether all of the range was read."""


def scan_packets(path: str, span: TimeRange, max_seconds: float) -> PacketScan:
    """Read packets for at most ``max_seconds``. Raises SourceError or UsageError as ``open_file`` does; damage ends
    the scan.
    """
    from av import FFmpegError

    deadline = time.perf_counter() + max_seconds
    pictures, sizes, complete = 0, dict[int, int](), False
    with open_file(path) as container:
        origin, main = clock_origin(container), main_video_stream(container)
        windows = {stream.index: span.ticks(origin, fraction(stream.time_base, Fraction(1, 1000)))
                   for stream in container.streams}
        try:
            if span.start:
                container.seek(int((origin + span.start) * 1_000_000))
            for packet in container.demux():
                if time.perf_counter() > deadline:
                    break
                index = packet.stream.index
                if packet.stream is main and packet.dts is not None and packet.dts >= windows[index].end:
                    complete = True
                    break
                if packet.size and not packet.is_discard and _is_within(packet.pts, windows[index]):
                    sizes[index] = sizes.get(index, 0) + packet.size
                    pictures += packet.stream is main
            else:
                complete = True
        except FFmpegError:
            complete = False
    return PacketScan(pictures, sizes, complete)


def _is_within(pts: int | None, window: TickRange) -> bool:
    return window.first <= pts < window.end if pts is not None else True
