"""Bring sound, subtitles, chapters, attachments and metadata from the input to the output.

Packets are copied where the output and its players know their codec; other sound is encoded, other texts are converted.
"""
from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from streamdream.errors import error_text
from streamdream.media.clock_restarts import ClockRestarts, can_restart
from streamdream.media.input_container import (
    TimeRange,
    clock_origin,
    is_attached_picture,
    main_video_stream,
    open_file,
    stated_end,
)
from streamdream.media.pyav import fraction, open_av
from streamdream.media.sinks.audio_encoder import AudioEncoder
from streamdream.media.sinks.packet_copy import PacketCopy
from streamdream.media.sinks.sound_formats import SOUND, bit_rate, choose_encoder, codec_name, plan_encoding
from streamdream.media.sinks.stream_selection import StreamSelection
from streamdream.media.sinks.subtitles import SubtitleConverter, is_text
from streamdream.media.timecode import advance
from streamdream.settings import RenderSettings

COVER_TYPES = {"mjpeg": "jpeg", "png": "png"}
CONTAINER_SPECIFIC_TAGS = re.compile(r"encoder|major_brand|minor_version|compatible_brands|vendor_id|rotate|name"
                        r"|timecode|(duration|bps|number_of_|_statistics).*", re.IGNORECASE)
"""Metadata that describe one file, and are wrong or written again in another."""
TIMECODE_FORMATS = {"mp4", "mov", "matroska", "webm"}
LOCATION = re.compile(r"location(-.*)?|com\.apple\.quicktime\.location\.iso6709", re.IGNORECASE)
LOCATION_FORMATS = {"mp4", "mov", "matroska", "webm"}
READ_AHEAD_SECONDS = 10
"""That packets of a file may be out of order; so far is read behind the end of the time range."""


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


class Route(Protocol):
    """What a stream's packets go through: a ``PacketCopy``, an ``AudioEncoder`` or a ``SubtitleConverter``."""

    damaged: int

    def take(self, packet: Any) -> list[Any]: ...
    def finish(self) -> list[Any]: ...


class StreamCopier:
    """Bring all but the main video from the file ``path`` into ``output``.

    ``output`` is an av container whose header is not yet written, ``video`` its video stream. What is encoded, converted
    or left out is named in ``warnings``; ``decisions`` has a row for every stream. Raises UsageError or UnknownName for
    settings that do not work.
    """

    def __init__(self, path: str, output: Any, video: Any, settings: RenderSettings, warnings: list[str]) -> None:
        self._path, self._output, self._settings, self._warnings = path, output, settings, warnings
        self._span = TimeRange.of(settings.start, settings.duration, settings.end)
        selection = StreamSelection(settings.map)
        self._input = open_file(path)
        try:
            self._main: Any = main_video_stream(self._input)
            origin = clock_origin(self._input)
            self._offset = origin + self._span.start
            self._windows = {stream.index: self._span.ticks(origin, fraction(stream.time_base, Fraction(1, 1000)))
                             for stream in self._input.streams}
            output.metadata.update(_portable_metadata(self._input.metadata))
            self._keep_location()
            output.set_chapters(list(self._chapters()))
            self.decisions: list[StreamDecision] = []
            self._routes: dict[int, Route] = {}
            self._add_streams(video, selection.select(path, list(self._input.streams)))
        except BaseException:
            self._input.close()
            raise
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

    # What becomes of each stream.

    def _add_streams(self, video: Any, selected: set[int]) -> None:
        from av.stream import Discard

        for stream in self._input.streams:
            if stream is self._main:
                self._decide(stream, "encoded", f"the picture is dreamed and encoded as {video.codec_context.name}")
                self._describe(stream, video)
                self._keep_timecode(video)
            elif stream.type == "audio" and self._settings.no_audio:
                self._decide(stream, "left out", "-an")
            elif stream.index not in selected:
                self._decide(stream, "left out", "-map")
            else:
                self._add_stream(stream)
        needed = {*self._routes, self._main.index if self._main and can_restart(self._input) else -1}
        for stream in self._input.streams:
            if stream.index not in needed:
                stream.discard = Discard.all

    def _add_stream(self, stream: Any) -> None:
        if self._attach_cover(stream):
            self._decide(stream, "kept", "as an attachment")
        elif stream.type == "audio":
            self._add_sound(stream)
        elif self._can_mux(stream):
            self._copy(stream)
        elif is_text(stream):
            self._convert(stream)
        elif stream.type == "data" and "timecode" in stream.metadata:
            pass  # of the picture, which has it already
        elif stream.type == "data" and 0 < stream.frames == len(self._input.chapters()):
            self._decide(stream, "kept", "as chapters")  # the titles of an mp4's chapters
        else:
            self._leave_out(stream)

    def _add_sound(self, stream: Any) -> None:
        container = self._output.format.name
        if stream.codec_context is None:
            self._leave_out(stream, "nothing decodes it")
        elif container not in SOUND:
            self._leave_out(stream)
        elif not (name := choose_encoder(stream, container, self._settings, self._delay_of(stream))):
            if self._can_mux(stream):
                self._copy(stream)
            else:
                self._leave_out(stream)
        else:
            self._encode(stream, name)

    def _encode(self, stream: Any, name: str) -> None:
        container = self._output.format.name
        encoding = plan_encoding(name, stream, bit_rate(self._settings))
        if encoding is None:
            self._leave_out(stream, f"{name} cannot encode it")
            return
        route = AudioEncoder(stream, self._output, encoding, self._length_of(stream), SOUND[container].stores_times)
        self._routes[stream.index] = route
        self._describe(stream, route.stream)
        why = f"players of {container} do not know it" if self._can_mux(stream) else f"{container} cannot hold it"
        if codec_name(stream) in SOUND[container].known:
            why = f"{container} cannot hold it as it is"
        why = why if self._settings.audio_codec == "auto" else f"-c:a {self._settings.audio_codec}"
        self._decide(stream, "encoded", f"encoded as {name}, {why}")
        if self._settings.audio_codec == "auto":
            self._warnings.append(f"stream {stream.index} of {self._path} ({describe_stream(stream)}) is encoded as "
                                  f"{name}: {why}")

    def _delay_of(self, stream: Any) -> Fraction:
        """When a stream begins in the output, in seconds."""
        start = (stream.start_time or 0) * fraction(stream.time_base, Fraction(1, 1000)) - self._offset
        return max(start, Fraction(0))

    def _length_of(self, stream: Any) -> Fraction | None:
        """Where a sound track ends in the output, in seconds; None for the end of its packets."""
        ends = [self._span.end]
        if "mp4" in self._input.format.name.split(","):  # its edit list may hide a part of the last packet
            stated = stated_end(self._input, stream)
            ends.append(None if stated is None else stated - clock_origin(self._input))
        return min((end - self._span.start for end in ends if end is not None), default=None)

    def _copy(self, stream: Any) -> None:
        output = self._output.add_stream_from_template(stream, opaque=True)
        self._describe(stream, output)
        if stream.type != "attachment":
            self._routes[stream.index] = PacketCopy(stream, output, self._windows[stream.index])
        self._decide(stream, "kept")

    def _convert(self, stream: Any) -> None:
        from av import FFmpegError

        try:
            route = SubtitleConverter(stream, self._output, self._span.end and self._span.end - self._span.start)
        except (FFmpegError, ValueError):
            self._leave_out(stream)
            return
        self._routes[stream.index] = route
        self._describe(stream, route.stream)
        name = codec_name(route.stream)
        self._decide(stream, "encoded", f"converted to {name}")
        self._warnings.append(f"stream {stream.index} of {self._path} ({describe_stream(stream)}) is converted to {name}")

    def _leave_out(self, stream: Any, reason: str = "") -> None:
        name = self._output.format.name
        self._decide(stream, "left out", reason or f"{name} cannot hold it")
        what = f"stream {stream.index} of {self._path} ({describe_stream(stream)})"
        self._warnings.append(f"{what} is left out: {reason}" if reason else
                              f"{name} cannot hold {what}; it is left out")

    def _decide(self, stream: Any, action: str, reason: str = "") -> None:
        self.decisions.append(StreamDecision(stream.index, describe_stream(stream), action, reason))

    @staticmethod
    def _describe(stream: Any, output: Any) -> None:
        output.metadata.update(_portable_metadata(stream.metadata))
        output.disposition = stream.disposition

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
        only = {"attachment": "matroska", "video": "mp4", "data": "", "unknown": ""}.get(stream.type,
                                                                                         self._output.format.name)
        if only != self._output.format.name or (stream.type == "video" and not is_attached_picture(stream)):
            return False
        try:
            with open_av(io.BytesIO(), "w", format=self._output.format.name) as dry_run:
                dry_run.add_stream_from_template(stream, opaque=True).disposition = stream.disposition
                dry_run.start_encoding()
        except (FFmpegError, ValueError):
            return False
        return True

    # What belongs to the whole file.

    def _chapters(self) -> Iterator[dict[str, Any]]:
        length = None if self._span.end is None else self._span.end - self._span.start
        for chapter in self._input.chapters():
            tick = fraction(chapter["time_base"], Fraction(1, 1000))
            start, end = (chapter[key] * tick - self._offset for key in ("start", "end"))
            start, end = max(start, Fraction(0)), end if length is None else min(end, length)
            if start < end:
                yield {**chapter, "start": round(start / tick), "end": round(end / tick)}

    def _keep_location(self) -> None:
        """Where a phone was."""
        places = [value for key, value in self._input.metadata.items() if LOCATION.fullmatch(key)]
        if places and self._output.format.name in LOCATION_FORMATS:
            self._output.metadata.setdefault("location", places[0])
        elif places:
            self._warnings.append(f"{self._output.format.name} cannot hold the GPS position of {self._path}; "
                                  "it is left out")

    def _keep_timecode(self, video: Any) -> None:
        """Of the first picture, as metadata of the video; the containers make a track of it."""
        texts = {stream.index: text for stream in self._input.streams if (text := _timecode(stream.metadata))}
        found = texts.get(self._main.index) or _timecode(self._input.metadata) or next(iter(texts.values()), "")
        rate, name = fraction(video.average_rate), self._output.format.name
        now = advance(found, math.ceil(self._span.start * rate), rate)
        if not found:
            return
        if name not in TIMECODE_FORMATS:
            now, reason = None, f"{name} cannot hold it"
        elif now is None:
            reason = f"there is none such at {float(rate):.5g} frames a second"
        else:
            reason = f"as the timecode {now} of the picture"
            video.metadata["timecode"] = now
        for index in texts:
            if self._input.streams[index].type == "data":
                self._decide(self._input.streams[index], "kept" if now else "left out", reason)
        if now is None and re.search("[1-9]", found):
            self._warnings.append(f"the timecode {found} of {self._path} is left out: {reason}")

    # Packets.

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
        restarts = can_restart(self._input)
        stated = Fraction((self._input.start_time or 0) + (self._input.duration or 0), 1_000_000)
        # Behind the stated end are recordings whose clock began anew; no seeking leads there.
        if self._span.start and not (restarts and self._offset > stated):
            self._input.seek(int(max(self._offset - 1, Fraction(0)) * 1_000_000))
        streams = [stream for stream in self._input.streams
                   if stream.index in self._routes or (restarts and stream is self._main)]
        packets = (packet for packet in self._input.demux(streams) if packet.size)
        if restarts and self._main:
            packets = ClockRestarts(self._main)(packets)
        for packet in packets:
            index = packet.stream.index
            if is_attached_picture(packet.stream):
                packet.pts = packet.dts = 0
            elif packet.pts is not None:
                window = self._windows[index]
                if packet.pts > window.end + READ_AHEAD_SECONDS / packet.time_base:
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


def _timecode(metadata: dict[str, str]) -> str:
    return next((text for key, text in metadata.items() if key.lower() == "timecode"), "")


def _portable_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Drop metadata of the input file. An mp4 reads a stream's title as ``name``, and writes it from ``title``."""
    portable = {key: value for key, value in metadata.items() if not CONTAINER_SPECIFIC_TAGS.fullmatch(key)}
    if "name" in metadata:
        portable.setdefault("title", metadata["name"])
    return portable


def describe_stream(stream: Any) -> str:
    """As in ``subtitle subrip, eng`` or ``data GoPro MET``."""
    name = codec_name(stream) if stream.codec_context else getattr(stream, "name", "")
    if not name and stream.type == "data":
        name = stream.metadata.get("handler_name", "")
    elif not name:
        name = "of an unknown codec"
    return " ".join(filter(None, (stream.type, name))) + (f", {stream.language}" if stream.language else "")
