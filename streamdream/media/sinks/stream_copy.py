"""Bring sound, subtitles, chapters, attachments and metadata from the input to the output.

Packets are copied where the output and its players know their codec; other sound is encoded, other texts are converted.
"""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from streamdream.errors import error_text
from streamdream.media.input_container import (
    NONZERO_START_FORMATS,
    TimeRange,
    clock_origin,
    is_attached_picture,
    open_file,
)
from streamdream.media.packet_clock import repaired_packets
from streamdream.media.pyav import demux, fraction
from streamdream.media.sinks.file_metadata import copy_metadata
from streamdream.media.sinks.stream_routes import StreamDecision, StreamRoutes
from streamdream.settings import RenderSettings

READ_AHEAD_SECONDS = 10
"""That packets of a file may be out of order; so far is read behind the end of the time range."""


class StreamCopier:
    """Bring all but the main video from the file ``path`` into ``output``.

    ``output`` is an av container whose header is not yet written, ``video`` its video stream. What is encoded,
    converted or left out is named in ``warnings``; ``decisions`` has a row for every stream. Raises UsageError or
    UnknownName for settings that do not work.
    """

    def __init__(self, path: str, output: Any, video: Any, settings: RenderSettings, warnings: list[str]) -> None:
        self._path, self._output, self._warnings = path, output, warnings
        self._span = TimeRange.of(settings.start, settings.duration, settings.end)
        self._input = open_file(path)
        try:
            copy_metadata(path, self._input, output, self._span, warnings)
            streams = StreamRoutes(path, self._input, output, video, settings, warnings)
        except BaseException:
            self._input.close()
            raise
        self.decisions: list[StreamDecision] = streams.decisions
        self._routes, self._main = streams.routes, streams.main
        self._failed_packets: dict[int, int] = {}
        self._packets = self._read()
        self._pending = next(self._packets, None)

    def copy_until(self, seconds: float) -> None:
        """Write all packets up to ``seconds`` of the output."""
        while self._pending is not None and self._pending[0] <= seconds:
            self._write(*self._pending[1:])
            self._pending = next(self._packets, None)

    def close(self) -> None:
        self._pending, self._packets = None, iter(())
        self._input.close()
        for index, route in self._routes.items():
            count = self._failed_packets.get(index, 0) + route.damaged
            if count:
                self._warnings.append(f"{count} damaged packets of stream {index} of {self._path} were left out")
        self._routes = {}

    # Reading: packets -> on the clock of the output -> encoded or converted.

    def _read(self) -> Iterator[tuple[float, int, list[Any]]]:
        """Times in the output, indices of the input's streams and packets for the output, in the order of the file."""
        from av import FFmpegError

        time = 0.0
        try:
            for packet in self._demux() if self._routes else ():
                index = packet.stream.index
                if packet.dts is not None:
                    time = float(packet.dts * packet.time_base)
                yield time, index, self._routes[index].take(packet)
        except FFmpegError as error:
            self._warnings.append(f"the sound of {self._path} is damaged after {time:.1f} s ({error_text(error)})")
        for index, route in self._routes.items():
            yield time, index, route.finish()

    def _demux(self) -> Iterator[Any]:
        """Packets that are needed, on the clock of the output."""
        from av.stream import Discard

        formats, origin = set(self._input.format.name.split(",")), clock_origin(self._input)
        restarts = bool(NONZERO_START_FORMATS & formats)
        repairs = self._main is not None and "mov" not in formats  # whose sound goes on from packet to packet
        streams = [stream for stream in self._input.streams
                   if stream.index in self._routes or (repairs and stream is self._main)]
        for stream in self._input.streams:
            stream.discard = Discard.default if stream in streams else Discard.all
        offset = origin + self._span.start
        stated = Fraction((self._input.start_time or 0) + (self._input.duration or 0), 1_000_000)
        # Behind the stated end are recordings whose clock began anew; no seeking leads there.
        if self._span.start and not (restarts and offset > stated):
            self._input.seek(int(max(offset - 1, Fraction(0)) * 1_000_000))
        windows = {stream.index: self._span.ticks(origin, fraction(stream.time_base, Fraction(1, 1000)))
                   for stream in streams}
        packets: Iterator[Any] = (packet for packet in demux(self._input, streams) if packet.size)
        if repairs:
            packets = repaired_packets(packets, self._main)
        for packet in packets:
            index = packet.stream.index
            if is_attached_picture(packet.stream):
                packet.pts = packet.dts = 0
            elif packet.pts is not None:
                window = windows[index]
                if packet.pts > window.end + READ_AHEAD_SECONDS / fraction(packet.time_base):
                    break
                packet.pts -= window.shift
                packet.dts = None if packet.dts is None else packet.dts - window.shift
            if index in self._routes:
                yield packet

    def _write(self, index: int, packets: list[Any]) -> None:
        from av.error import ArgumentError, InvalidDataError

        for packet in packets:
            try:
                self._output.mux_one(packet)
            except (ArgumentError, InvalidDataError):
                self._failed_packets[index] = self._failed_packets.get(index, 0) + 1
