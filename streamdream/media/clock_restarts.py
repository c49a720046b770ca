"""Recordings joined in one file: where the clock begins anew, all streams are shifted by the same time.

The pictures decide by how much, as ``TimestampRepair`` does for those that are decoded: the first picture of a
recording follows the last one of the recording before.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamdream.media.input_container import NONZERO_START_FORMATS
from streamdream.media.pyav import fraction

RESET_SECONDS = 1
"""A jump back by more is a clock that begins anew."""
DEFAULT_RATE = Fraction(25)
MAX_HELD_PACKETS = 4096
"""That wait for the picture that tells the shift; after these there is none."""


def can_restart(container: Any) -> bool:
    """Whether files of this format can be joined by writing one behind the other."""
    return bool(NONZERO_START_FORMATS & set(container.format.name.split(",")))


@dataclass
class _StreamClock:
    tick: Fraction
    recording: int = 0
    last: int | None = None
    """Decode time of the last packet, in ticks."""
    end: Fraction = Fraction(0)
    """Where the latest packet so far ends, in shifted seconds."""


class ClockRestarts:
    """Shift packets of all streams at each restart; ``main`` is the video stream.

    Sound at the beginning of a recording that would overlap the one before is left out.
    """

    def __init__(self, main: Any) -> None:
        self._main, self._step = main.index, 1 / fraction(main.average_rate, DEFAULT_RATE)
        self._shifts = [Fraction(0)]
        """Of each recording, in seconds."""
        self._clocks: dict[int, _StreamClock] = {}
        self._held: list[tuple[Any, int]] = []
        """Packets of recordings whose shift is not known yet, and the numbers of those."""

    def __call__(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Each packet, shifted; in the order of the file within each stream."""
        for packet in packets:
            recording = self._recording_of(packet)
            if recording < len(self._shifts):
                yield from self._shift(packet, recording)
            elif packet.stream.index == self._main:
                self._add_shift(packet)
                yield from self._release()
                yield from self._shift(packet, recording)
            else:
                self._held.append((packet, recording))
            if len(self._held) > MAX_HELD_PACKETS:
                yield from self._release_without_picture()
        while self._held:
            yield from self._release_without_picture()

    def _recording_of(self, packet: Any) -> int:
        """The number of the packet's recording, counted from 0."""
        index = packet.stream.index
        tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
        clock = self._clocks.setdefault(index, _StreamClock(tick))
        time = packet.pts if packet.dts is None else packet.dts
        if time is not None:
            if clock.last is not None and (clock.last - time) * tick > RESET_SECONDS:
                clock.recording += 1
            clock.last = time
        return clock.recording

    def _add_shift(self, packet: Any) -> None:
        """The packet is the first one of a recording."""
        clock = self._clocks[packet.stream.index]
        time = packet.dts if packet.pts is None else packet.pts
        self._shifts.append(clock.end - time * clock.tick)

    def _shift(self, packet: Any, recording: int) -> Iterator[Any]:
        clock = self._clocks[packet.stream.index]
        ticks = round(self._shifts[recording] / clock.tick)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        if packet.pts is not None:
            length = self._step if packet.stream.index == self._main else (packet.duration or 0) * clock.tick
            start = packet.pts * clock.tick
            if recording and packet.stream.type == "audio" and start + length / 2 < clock.end:
                return
            clock.end = max(clock.end, start + length)
        yield packet

    def _release(self) -> Iterator[Any]:
        held, self._held = self._held, []
        for packet, recording in held:
            if recording < len(self._shifts):
                yield from self._shift(packet, recording)
            else:
                self._held.append((packet, recording))

    def _release_without_picture(self) -> Iterator[Any]:
        self._add_shift(self._held[0][0])
        yield from self._release()
