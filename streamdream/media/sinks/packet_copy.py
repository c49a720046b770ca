"""Copy the packets of one stream unchanged, but for those that the time range or an edit list hides."""
from __future__ import annotations

from typing import Any

from streamdream.media.input_container import TickRange
from streamdream.media.pyav import fraction

EDIT_LIST_FORMATS = {"mp4", "mov"}
"""Containers that can hide what comes before time 0."""
PRIMING_SAMPLES = 4096
"""An encoder begins with less silence than this, which its decoder needs; more is hidden by an edit list."""
WARM_UP_SAMPLES = 1024
"""Before a cut that a decoder needs to be right from the cut on."""


class PacketCopy:
    """Packets of ``source``, a stream of the input, become those of ``output``, a stream that was made from it.

    They come with times of the output's clock, on which ``window.shift`` is 0.
    """

    damaged = 0

    def __init__(self, source: Any, output: Any, window: TickRange) -> None:
        self._output, self._type = output, source.type
        self._first, self._end = window.first - window.shift, window.end - window.shift
        self._rate = source.codec_context.sample_rate if source.type == "audio" else 0
        self._hidden_ticks = -1.0
        """How long the sound before 0 is that is kept, in ticks; below 0 until the first packet tells."""

    def take(self, packet: Any) -> list[Any]:
        if packet.pts is not None and not self._is_shown(packet):
            return []
        if packet.pts is None and self._first == 0:
            return []
        packet.dts = packet.pts if packet.dts is None else packet.dts
        packet.stream = self._output
        return [packet]

    def finish(self) -> list[Any]:
        return []

    def _is_shown(self, packet: Any) -> bool:
        end = packet.pts + (packet.duration or 0)
        if self._type == "subtitle" and packet.pts < self._first < end:  # shown while the range begins
            packet.pts, packet.duration = 0, end
            packet.dts = 0
        if packet.is_discard and not self._is_priming(packet, end):
            return False
        return bool(self._first <= packet.pts < self._end)

    def _is_priming(self, packet: Any, end: int) -> bool:
        """Whether a packet that an edit list hides is needed for what follows."""
        if not self._rate or packet.pts >= 0:
            return False
        ticks_per_sample = 1 / (self._rate * fraction(packet.time_base))
        if self._hidden_ticks < 0:
            is_priming = -packet.pts <= PRIMING_SAMPLES * ticks_per_sample
            warm_up = WARM_UP_SAMPLES if self._output.container.format.name in EDIT_LIST_FORMATS else 0
            self._hidden_ticks = float((PRIMING_SAMPLES if is_priming else warm_up) * ticks_per_sample)
        return end > -self._hidden_ticks
