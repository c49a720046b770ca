"""Timestamps of packets, repaired as those of the pictures are (see ``timestamps.py``): to copy sound and to count."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from streamdream.media.pyav import fraction
from streamdream.media.timestamps import MAX_GAP_SECONDS, MAX_GAP_STEPS, RESET_SECONDS, SoundSpans, frame_rate

MAX_HELD_PACKETS = 4096
"""That wait for a picture; when there are more, the oldest goes on with its own time."""


def repaired_packets(packets: Iterable[Any], main: Any) -> Iterator[Any]:
    """Give packets their repaired times, in the order of the file within each stream. ``main`` is the video stream,
    whose packets must be among them. Sound that would overlap what came before a restart is left out.
    """
    clock = PacketClock(1 / frame_rate(main))
    held: list[Any] = []
    ends: dict[int, Fraction] = {}

    def shifted(packet: Any, time: Fraction | None) -> Iterator[Any]:
        tick = fraction(packet.time_base, Fraction(1, 1000))
        if time is not None and packet.pts is not None:
            shift = round(time / tick) - packet.pts
            packet.pts, packet.dts = packet.pts + shift, None if packet.dts is None else packet.dts + shift
            if packet.stream.type == "audio":
                length = (packet.duration or 0) * tick
                if shift and time + length / 2 < ends.get(packet.stream.index, time):
                    return
                ends[packet.stream.index] = time + length
        yield packet

    for packet in packets:
        if packet.stream is main:
            yield from shifted(packet, clock.time_of(packet, main))
            waiting, held = held, []
        else:
            waiting = [packet]
        for other in waiting:
            stuck = any(before.stream is other.stream for before in held)
            time = None if stuck else clock.time_of(other, main)
            if stuck or (time is None and other.pts is not None):
                held.append(other)
            else:
                yield from shifted(other, time)
        if len(held) > MAX_HELD_PACKETS:
            yield held.pop(0)
    yield from held


class PacketClock:
    """Repair the times of the packets of all streams, which come in the order of the file.

    All streams get the shifts of the main one, which its pictures have. Times are in seconds; ``step`` is the distance
    of pictures.
    """

    def __init__(self, step: Fraction) -> None:
        self._step = step
        self._max_gap = max(Fraction(MAX_GAP_SECONDS), MAX_GAP_STEPS * step)
        self._sound = SoundSpans()
        self._epochs = [_Epoch(Fraction(0), [])]
        """One for each time that the clock of the main stream began."""
        self._streams: dict[int, tuple[int, Fraction]] = {}
        """Of each stream: its epoch, and its last time."""
        self._latest: Fraction | None = None
        """Presentation time of the main stream."""

    def main(self, pts: Fraction, dts: Fraction | None = None) -> Fraction:
        """The repaired presentation time of a packet of the main stream."""
        number = self._epoch_at(-1, pts if dts is None else dts)
        if number == len(self._epochs):
            assert self._latest is not None
            self._epochs.append(_Epoch(self._epochs[-1](self._latest) + self._step - pts, []))
            self._latest = pts
        elif self._latest is not None and self._is_beyond_gap(pts):
            self._epochs[-1].gaps.append(_Gap(self._latest + self._step, pts))
        elif self._epochs[-1].gaps:
            self._epochs[-1].gaps[-1].shrink(pts, self._step)
        self._latest = pts if self._latest is None else max(self._latest, pts)
        return self._epochs[-1](pts)

    def other(self, index: int, pts: Fraction, is_sound: bool) -> Fraction | None:
        """The repaired time of a packet of another stream; None where the main stream has not come that far: ask again
        after its next packet. At the end of the file its own time is as good as any.
        """
        before = self._streams.get(index)
        number = self._epoch_at(index, pts)
        if is_sound:
            self._sound.add(float(pts))
        if number < len(self._epochs) - 1:
            return self._epochs[number](pts)
        if number == len(self._epochs) or self._is_beyond_gap(pts):
            self._streams.pop(index)
            if before is not None:
                self._streams[index] = before
            return None
        return self._epochs[number](pts)

    def time_of(self, packet: Any, main: Any) -> Fraction | None:
        """``main`` or ``other`` for a packet; None also where it has no time."""
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is None:
            return None
        tick = fraction(packet.time_base, Fraction(1, 1000))
        if packet.stream is main:
            return self.main(ticks * tick, None if packet.dts is None else packet.dts * tick)
        return self.other(packet.stream.index, ticks * tick, packet.stream.type == "audio")

    def _is_beyond_gap(self, pts: Fraction) -> bool:
        """Whether a gap that is closed lies between the last picture and this time."""
        return (self._latest is not None and pts - self._latest > self._max_gap
                and not self._sound.covers(float(self._latest), float(pts)))

    def _epoch_at(self, index: int, time: Fraction) -> int:
        number, last = self._streams.get(index, (len(self._epochs) - 1, time))
        if time < last - RESET_SECONDS:  # a part without this stream may lie between
            number = max(number + 1, len(self._epochs) - (index != -1))
        self._streams[index] = number, time
        return number


class _Epoch(NamedTuple):
    """From one restart of a clock to the next."""

    shift: Fraction
    gaps: list[_Gap]
    """Those that are closed."""

    def __call__(self, time: Fraction) -> Fraction:
        return time + self.shift - sum((gap.end - gap.start for gap in self.gaps if gap.precedes(time)), Fraction(0))


@dataclass
class _Gap:
    start: Fraction
    """When the next picture was due."""
    end: Fraction
    """Presentation time of the first picture behind it."""

    def precedes(self, time: Fraction) -> bool:
        return time > (self.start + self.end) / 2

    def shrink(self, pts: Fraction, step: Fraction) -> None:
        """Where pictures are not in the order of decoding, some at its edges come after the packet that showed it."""
        if self.precedes(pts):
            self.end = min(self.end, pts)
        else:
            self.start = max(self.start, pts + step)
