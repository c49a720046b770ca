"""Count the pictures of a file, and the bytes of its streams, without decoding."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamdream.media.input_container import TimeRange, clock_origin, main_video_stream, open_file, stated_end
from streamdream.media.packet_clock import PacketClock
from streamdream.media.pyav import demux, fraction
from streamdream.media.timestamps import MAX_GAP_STEPS, frame_rate

MIN_PICTURE_BYTES, MAX_COUNT_SECONDS = 64, 1.0
"""Where pictures would be smaller than that on average, they are counted, for so long."""


@dataclass(frozen=True)
class PacketScan:
    """Of a time range of a file."""

    pictures: int
    stream_bytes: dict[int, int]
    """Of each stream, by its index."""
    complete: bool
    """Whether all of the range was read."""


def scan_packets(path: str, span: TimeRange, max_seconds: float) -> PacketScan:
    """Raises SourceError or UsageError as ``open_file`` does; see ``scan_container``."""
    with open_file(path) as container:
        return scan_container(container, span, max_seconds)


def scan_container(container: Any, span: TimeRange, max_seconds: float) -> PacketScan:
    """Read packets for at most ``max_seconds``; damage ends the scan. Times are repaired as those of pictures are."""
    from av import FFmpegError

    deadline = time.perf_counter() + max_seconds
    pictures, sizes, complete = 0, dict[int, int](), False
    origin, main = clock_origin(container), main_video_stream(container)
    first, end = origin + span.start, None if span.end is None else origin + span.end
    clock = PacketClock(1 / frame_rate(main))
    try:
        if span.start:
            container.seek(int(first * 1_000_000))
        for packet in demux(container):
            if time.perf_counter() > deadline:
                break
            at = clock.time_of(packet, main)
            if packet.stream is main and _is_beyond(packet, at, end):
                complete = True
                break
            is_within = at is None or ((not span.start or at >= first) and (end is None or at < end))
            if packet.size and not packet.is_discard and is_within:
                sizes[packet.stream.index] = sizes.get(packet.stream.index, 0) + packet.size
                pictures += packet.stream is main
        else:
            complete = True
    except FFmpegError:
        complete = False
    return PacketScan(pictures, sizes, complete)


def picture_times(path: str, span: TimeRange) -> list[int] | None:
    """Times of all pictures in ``span``, ascending, in ticks of the stream, as its packets tell them without decoding;
    None where some have no time, or two the same: then only decoding tells. Raises as ``open_file``.
    """
    from av import FFmpegError
    from av.stream import Discard

    with open_file(path) as container:
        stream = main_video_stream(container)
        if stream is None:
            return None
        window = span.ticks(clock_origin(container), fraction(stream.time_base, Fraction(1, 1000)))
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        try:
            found = [packet.pts for packet in demux(container, stream) if packet.size and not packet.is_discard]
        except FFmpegError:
            return None
    if None in found or len(set(found)) < len(found):
        return None
    return sorted(time for time in found if window.first <= time < window.end)


def estimate_pictures(container: Any, stream: Any, span: TimeRange, rate: Fraction, reopen: Callable[[], Any] | None
                      ) -> int:
    """About how many pictures of ``stream`` lie in ``span``, for a progress display; 0 when unknown.

    ``rate`` is in pictures per second; ``reopen`` opens the container once more, where that can be done.
    """
    stated = stated_end(container, stream)
    ends = [end for end in (stated and stated - clock_origin(container), span.end) if end is not None]
    if not ends:
        return 0
    start = (stream.start_time or 0) * fraction(stream.time_base, Fraction(1, 1000))
    counted = stream.frames / (stated - start) if stated and stated > start else Fraction(0)
    count = max(round((min(ends) - span.start) * (counted if counted * MAX_GAP_STEPS > rate else rate)), 1)
    if reopen and 0 < (container.size or 0) < count * MIN_PICTURE_BYTES:
        with reopen() as other:  # the length may be that of a clock that jumped
            scan = scan_container(other, span, MAX_COUNT_SECONDS)
        count = max(scan.pictures, 1) if scan.complete else count
    return count


def _is_beyond(packet: Any, at: Fraction | None, end: Fraction | None) -> bool:
    """Whether all packets that follow are to be shown after ``end``: by the time of decoding, which only grows."""
    if at is None or end is None or packet.dts is None:
        return False
    early = 0 if packet.pts is None else (packet.pts - packet.dts) * fraction(packet.time_base, Fraction(1, 1000))
    return at - early >= end
