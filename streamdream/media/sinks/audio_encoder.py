"""Encode a sound track again: packets of the input in, packets of the output out, exact to the sample."""
from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from streamdream.media.pyav import fraction
from streamdream.media.sinks.sound_formats import SoundEncoding, configure

MAX_DRIFT_SECONDS = 0.03
"""Times of packets that differ by less from the number of samples are rounded; a larger gap is filled with silence,
and what overlaps is cut."""
MAX_OVERLAP_SECONDS, MAX_GAP_SECONDS = 1, 600


class AudioEncoder:
    """Decode the packets of ``source``, a stream of the input, and encode them into a new stream of ``output``.

    The sound is cut at 0 and at ``length`` seconds, None for all. Where the container does not store times
    (``stores_times``), silence is put before sound that begins late, and the delay of the encoder is taken off.
    """

    def __init__(self, source: Any, output: Any, encoding: SoundEncoding, length: Fraction | None, stores_times: bool
                 ) -> None:
        self.damaged = 0
        """Packets that could not be decoded."""
        self._source, self._encoding, self._stores_times = source, encoding, stores_times
        self._end = math.inf if length is None else math.ceil(length * encoding.rate)
        self.stream = output.add_stream(encoding.codec, rate=encoding.rate)
        configure(self.stream.codec_context, encoding)
        self._tick = fraction(source.time_base, Fraction(1, encoding.rate))
        self._graph: Any = None
        self._input: tuple[Any, ...] = ()
        """Format, layout, rate and time base of the decoded sound, for which the graph is made."""
        self._next: int | None = None
        """Where the encoded sound goes on, in samples."""
        self._input_end = Fraction(0)
        """Where the decoded sound goes on, in seconds."""

    def take(self, packet: Any) -> list[Any]:
        """Take a packet with times of the output's clock; return encoded packets. None is the end of the sound."""
        from av import FFmpegError

        encoded: list[Any] = []
        try:
            for frame in self._source.decode(packet):
                encoded += self._encode(frame)
        except (FFmpegError, ValueError):  # damaged, or of a form that cannot be converted
            self.damaged += 1
        return encoded

    def finish(self) -> list[Any]:
        """The last packets."""
        return [*self.take(None), *self._end_graph(), *self.stream.encode(None)] if self._next is not None else []

    def _encode(self, frame: Any) -> Iterator[Any]:
        tick = self._tick  # of the packets; PyAV does not give all frames one
        start = self._input_end if frame.pts is None else frame.pts * tick
        if self._graph and not -MAX_OVERLAP_SECONDS <= start - self._input_end <= MAX_GAP_SECONDS:
            start = self._input_end  # a wrong time, which would become hours of silence
        self._input_end = start + Fraction(frame.samples, frame.sample_rate)
        frame.pts, frame.time_base = round(start / tick), tick
        described = frame.format.name, frame.layout.name, frame.sample_rate, tick
        if described != self._input:
            yield from self._end_graph()
            self._input = described
            self._graph = self._new_graph(start)
        if self._graph:
            yield from self._pull(frame)

    def _new_graph(self, start: Fraction) -> Any:
        """From decoded to encodable sound: resampled, without gaps, and cut. ``start`` is in seconds."""
        from av.filter import Graph

        form, layout, rate, tick = self._input
        encoding, first = self._encoding, self._next
        if first is None:
            first = max(round(start * encoding.rate), 0) if self._stores_times else encoding.delay
        if first >= self._end:
            return None
        first = round(Fraction(first * rate, encoding.rate))  # libswresample counts it in samples of its input
        graph = Graph()
        filters = [graph.add_abuffer(sample_rate=rate, format=form, layout=layout, time_base=tick),
                   graph.add("aresample", f"async=1:min_hard_comp={MAX_DRIFT_SECONDS}:first_pts={first}"),
                   *([] if math.isinf(self._end) else [graph.add("atrim", f"end_pts={int(self._end)}")]),
                   graph.add("aformat", f"sample_rates={encoding.rate}:sample_fmts={encoding.format}"
                                        f":channel_layouts={encoding.layout}"),
                   graph.add("abuffersink")]
        graph.link_nodes(*filters).configure()
        return graph

    def _pull(self, frame: Any) -> Iterator[Any]:
        """Encode what the graph gives for ``frame``, or, where that is None, what is left in it."""
        from av.error import BlockingIOError, EOFError

        try:
            self._graph.push(frame)
            while True:
                sound = self._graph.pull()
                self._next = sound.pts + sound.samples
                yield from self.stream.encode(sound)
        except (BlockingIOError, EOFError):
            return

    def _end_graph(self) -> Iterator[Any]:
        if self._graph:
            yield from self._pull(None)
