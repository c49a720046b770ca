"""What becomes of each stream of the input: copied, encoded, converted, or left out."""
from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from streamdream.media.input_container import (
    TickRange,
    TimeRange,
    clock_origin,
    is_attached_picture,
    main_video_stream,
    stated_end,
)
from streamdream.media.pyav import fraction, open_av
from streamdream.media.sinks.audio_encoder import AudioEncoder
from streamdream.media.sinks.file_metadata import keep_timecode, portable_metadata, timecode_streams
from streamdream.media.sinks.packet_copy import PacketCopy
from streamdream.media.sinks.sound_formats import SOUND, bit_rate, choose_encoder, codec_name, plan_encoding
from streamdream.media.sinks.stream_selection import StreamSelection
from streamdream.media.sinks.subtitles import SubtitleConverter, is_text
from streamdream.settings import RenderSettings

COVER_TYPES = {"mjpeg": "jpeg", "png": "png"}


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


class StreamRoutes:
    """Add to the av container ``output`` a stream for each of ``source``, the file ``path``, that is kept.

    ``video`` is the output's stream of the dreamed picture. ``routes`` tells by the input's index what packets go
    through, ``decisions`` has a row for every stream; what is not simply kept is named in ``warnings``. Raises
    UsageError or UnknownName for settings that do not work.
    """

    def __init__(self, path: str, source: Any, output: Any, video: Any, settings: RenderSettings, warnings: list[str]
                 ) -> None:
        self._path, self._input, self._output, self._settings, self._warnings = path, source, output, settings, warnings
        self._span = TimeRange.of(settings.start, settings.duration, settings.end)
        self._origin = clock_origin(source)
        self.main: Any = main_video_stream(source)
        self.decisions: list[StreamDecision] = []
        self.routes: dict[int, Route] = {}
        selected = StreamSelection(settings.map).select(path, list(source.streams))
        has_timecode, timecode = keep_timecode(path, source, self.main, video, output.format.name, self._span, warnings)
        for stream in source.streams:
            if stream is self.main:
                self._decide(stream, "encoded", f"the picture is dreamed and encoded as {video.codec_context.name}")
                self._describe(stream, video)
            elif stream.type == "audio" and settings.no_audio:
                self._decide(stream, "left out", "-an")
            elif stream.index not in selected:
                self._decide(stream, "left out", "-map")
            elif stream.type == "data" and stream.index in timecode_streams(source):
                self._decide(stream, "kept" if has_timecode else "left out", timecode)
            else:
                self._add_stream(stream)

    def _add_stream(self, stream: Any) -> None:
        if self._attach_cover(stream):
            self._decide(stream, "kept", "as an attachment")
        elif stream.type == "audio":
            self._add_sound(stream)
        elif self._can_mux(stream):
            self._copy(stream)
        elif is_text(stream):
            self._convert(stream)
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
            if not self._can_mux(stream):
                self._leave_out(stream)
                return
            self._copy(stream)
            if self._settings.audio_bit_rate:
                self._warnings.append(f"-b:a {self._settings.audio_bit_rate} changes nothing of stream {stream.index} "
                                      f"of {self._path} ({describe_stream(stream)}), which is copied; -c:a encodes it")
        else:
            self._encode(stream, name)

    def _encode(self, stream: Any, name: str) -> None:
        container = self._output.format.name
        encoding = plan_encoding(name, stream, bit_rate(self._settings))
        if encoding is None:
            self._leave_out(stream, f"{name} cannot encode it")
            return
        route = AudioEncoder(stream, self._output, encoding, self._length_of(stream), SOUND[container].stores_times)
        self.routes[stream.index] = route
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
        start = (stream.start_time or 0) * fraction(stream.time_base, Fraction(1, 1000))
        return max(start - self._origin - self._span.start, Fraction(0))

    def _length_of(self, stream: Any) -> Fraction | None:
        """Where a sound track ends in the output, in seconds; None for the end of its packets."""
        ends = [self._span.end]
        if "mp4" in self._input.format.name.split(","):  # its edit list may hide a part of the last packet
            stated = stated_end(self._input, stream)
            ends.append(None if stated is None else stated - self._origin)
        return min((end - self._span.start for end in ends if end is not None), default=None)

    def _copy(self, stream: Any) -> None:
        output = self._output.add_stream_from_template(stream, opaque=True)
        self._describe(stream, output)
        if stream.type != "attachment":
            self.routes[stream.index] = PacketCopy(stream, output, self._window_of(stream))
        self._decide(stream, "kept")

    def _window_of(self, stream: Any) -> TickRange:
        return self._span.ticks(self._origin, fraction(stream.time_base, Fraction(1, 1000)))

    def _convert(self, stream: Any) -> None:
        from av import FFmpegError

        try:
            route = SubtitleConverter(stream, self._output, self._span.end and self._span.end - self._span.start)
        except (FFmpegError, ValueError):
            self._leave_out(stream)
            return
        self.routes[stream.index] = route
        self._describe(stream, route.stream)
        name = codec_name(route.stream)
        self._decide(stream, "encoded", f"converted to {name}")
        self._warnings.append(f"stream {stream.index} of {self._path} ({describe_stream(stream)}) is converted to "
                              f"{name}")

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
        output.metadata.update(portable_metadata(stream.metadata))
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


def describe_stream(stream: Any) -> str:
    """As in ``subtitle subrip, eng`` or ``data GoPro MET``."""
    name = codec_name(stream) if stream.codec_context else getattr(stream, "name", "")
    if not name and stream.type == "data":
        name = stream.metadata.get("handler_name", "")
    elif not name:
        name = "of an unknown codec"
    return " ".join(filter(None, (stream.type, name))) + (f", {stream.language}" if stream.language else "")
