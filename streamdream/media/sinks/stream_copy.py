"""Copy sound, subtitles, chapters, attachments and metadata from the input to the output, without re-encoding."""
from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamdream.errors import error_text
from streamdream.media.input_container import TimeRange, clock_origin, is_attached_picture, main_video_stream, open_file
from streamdream.media.pyav import fraction, open_av

COVER_TYPES = {"mjpeg": "jpeg", "png": "png"}
CONTAINER_SPECIFIC_TAGS = re.compile(r"encoder|major_brand|minor_version|compatible_brands|vendor_id|rotate|name"
                        r"|(duration|bps|number_of_|_statistics).*", re.IGNORECASE)
"""Metadata that describe one file, and are wrong or written again in another."""


@dataclass(frozen=True)
class StreamDecision:
    """What becomes of a stream of the input."""

    index: int
    description: str
    """As in ``audio aac, eng``."""
    action: str
    """``encoded``, ``kept`` or ``left out``."""
    reason: str = ""
    """Why it is left out, or what it is encoded as."""


class StreamCopier:
    """Copy sound, subtitles, attachments, covers, chapters and metadata unchanged.

    ``output`` is an av container whose header is not yet written, ``video`` its video stream. A stream that it cannot
    hold is left out and named in ``warnings``; ``decisions`` has a row for every stream.
    """

    def __init__(self, path: str, output: Any, video: Any, span: TimeRange, warnings: list[str]) -> None:
        self._path, self._output, self._span, self._warnings = path, output, span, warnings
        self._input = open_file(path)
        origin = clock_origin(self._input)
        self._offset = origin + span.start
        self._windows = {stream.index: span.ticks(origin, fraction(stream.time_base, Fraction(1, 1000)))
                         for stream in self._input.streams}
        output.metadata.update(_portable_metadata(self._input.metadata))
        output.set_chapters(list(self._chapters()))
        self.decisions: list[StreamDecision] = []
        self._output_streams = self._add_streams(video)
        self._failed_packets: dict[int, int] = {}
        self._packets = self._read()
        self._pending = next(self._packets, None)

    def copy_until(self, seconds: float) -> None:
        """Copy all packets up to ``seconds`` of the output."""
        while self._pending is not None and self._pending[0] <= seconds:
            self._copy(self._pending[1])
            self._pending = next(self._packets, None)

    def close(self) -> None:
        self._pending, self._packets = None, iter(())
        self._input.close()
        for index, count in self._failed_packets.items():
            self._warnings.append(f"{count} damaged packets of stream {index} of {self._path} were left out")
        self._failed_packets = {}

    def _chapters(self) -> Iterator[dict[str, Any]]:
        length = None if self._span.end is None else self._span.end - self._span.start
        for chapter in self._input.chapters():
            tick = fraction(chapter["time_base"], Fraction(1, 1000))
            start, end = (chapter[key] * tick - self._offset for key in ("start", "end"))
            start, end = max(start, Fraction(0)), end if length is None else min(end, length)
            if start < end:
                yield {**chapter, "start": round(start / tick), "end": round(end / tick)}

    def _add_streams(self, video: Any) -> dict[int, Any]:
        """Add an output stream for each input stream that can be copied; input index -> output stream."""
        from av.stream import Discard

        main = main_video_stream(self._input)
        outputs = {}
        for stream in self._input.streams:
            if stream is main:
                self._decide(stream, "encoded", f"the picture is dreamed and encoded as {video.codec_context.name}")
                output = video
            elif self._attach_cover(stream):
                self._decide(stream, "kept", "as an attachment")
                continue
            elif self._can_mux(stream):
                self._decide(stream, "kept")
                output = outputs[stream.index] = self._output.add_stream_from_template(stream, opaque=True)
            elif stream.type == "data" and self._input.chapters():
                self._decide(stream, "kept", "as chapters")  # the titles of an mp4's chapters
                continue
            else:
                name = self._output.format.name
                self._decide(stream, "left out", f"{name} cannot hold it")
                self._warnings.append(f"{name} cannot hold stream {stream.index} of {self._path} "
                                      f"({describe_stream(stream)}); it is left out")
                continue
            output.metadata.update(_portable_metadata(stream.metadata))
            output.disposition = stream.disposition
        for stream in self._input.streams:
            if stream.index not in outputs:
                stream.discard = Discard.all
        return outputs

    def _decide(self, stream: Any, action: str, reason: str = "") -> None:
        self.decisions.append(StreamDecision(stream.index, describe_stream(stream), action, reason))

    def _attach_cover(self, stream: Any) -> bool:
        """Matroska stores covers as attachments. Covers come first in the input, so no other packet is skipped."""
        kind = COVER_TYPES.get(stream.codec_context.name) if stream.codec_context else None
        if not kind or not is_attached_picture(stream) or self._output.format.name != "matroska":
            return False
        data = bytes(next(self._input.demux(stream)))
        self._output.add_attachment(f"cover.{kind}", f"image/{kind}", data)
        return True

    def _can_mux(self, stream: Any) -> bool:
        """Dry run: some streams are refused when they are added, some only when the header is written."""
        from av import FFmpegError

        # Other formats accept attachments and covers, and drop them or show them as video.
        only = {"attachment": "matroska", "video": "mp4", "data": ""}.get(stream.type, self._output.format.name)
        if only != self._output.format.name or (stream.type == "video" and not is_attached_picture(stream)):
            return False
        try:
            with open_av(io.BytesIO(), "w", format=self._output.format.name) as dry_run:
                dry_run.add_stream_from_template(stream, opaque=True).disposition = stream.disposition
                dry_run.start_encoding()
        except (FFmpegError, ValueError):
            return False
        return True

    def _read(self) -> Iterator[tuple[float, Any]]:
        """Packets of the time range with their times in the output, in the order of the file."""
        from av import FFmpegError

        streams = [stream for stream in self._input.streams if stream.index in self._output_streams]
        streams = [stream for stream in streams if stream.type != "attachment"]
        if not streams:
            return
        time = 0.0
        try:
            if self._span.start:
                self._input.seek(int(max(self._offset - 1, Fraction(0)) * 1_000_000))
            for packet in self._input.demux(streams):
                if packet.size and self._shift_into_range(packet):
                    packet.dts = packet.pts if packet.dts is None else packet.dts
                    time = float((packet.dts or 0) * packet.time_base)
                    yield time, packet
        except FFmpegError as error:
            self._warnings.append(f"the sound of {self._path} is damaged after {time:.1f} s ({error_text(error)})")

    def _shift_into_range(self, packet: Any) -> bool:
        """Move the packet to the output's clock; return whether it is within the time range."""
        if is_attached_picture(packet.stream):
            packet.pts = packet.dts = 0
            return True
        window = self._windows[packet.stream.index]
        if packet.pts is None or not window.first <= packet.pts < window.end:
            return packet.pts is None and not self._span.start
        packet.pts -= window.shift
        packet.dts = None if packet.dts is None else packet.dts - window.shift
        return True

    def _copy(self, packet: Any) -> None:
        from av.error import ArgumentError, InvalidDataError

        index = packet.stream.index
        packet.stream = self._output_streams[index]
        try:
            self._output.mux_one(packet)
        except (ArgumentError, InvalidDataError):
            self._failed_packets[index] = self._failed_packets.get(index, 0) + 1


def _portable_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Drop metadata of the input file. An mp4 reads a stream's title as ``name``, and writes it from ``title``."""
    portable = {key: value for key, value in metadata.items() if not CONTAINER_SPECIFIC_TAGS.fullmatch(key)}
    if "name" in metadata:
        portable.setdefault("title", metadata["name"])
    return portable


def describe_stream(stream: Any) -> str:
    """As in ``subtitle subrip, eng``."""
    name = stream.codec_context.name if stream.codec_context else stream.name
    return " ".join(filter(None, (stream.type, name))) + (f", {stream.language}" if stream.language else "")
