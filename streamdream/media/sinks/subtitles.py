"""Convert text subtitles into the kind that the output's container holds, by FFmpeg's decoders and encoders."""
from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from streamdream.media.pyav import fraction
from streamdream.media.sinks.sound_formats import codec_name

TEXT_CODECS = {"ass", "mov_text", "ssa", "subrip", "text", "webvtt"}
CONVERTED = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""What text subtitles become where the container cannot hold them, by its name."""
MILLISECOND = Fraction(1, 1000)
MOV_TICK = Fraction(1, 1_000_000)
"""FFmpeg's muxer compares ticks of texts with those of pictures; if its own are the longer, a text ends too early."""
MAX_SECONDS = 24 * 3600
"""That a text is shown; what is longer has no end."""
DEFAULT_SECONDS = 5


def is_text(stream: Any) -> bool:
    return stream.type == "subtitle" and bool(stream.codec_context) and codec_name(stream) in TEXT_CODECS


class SubtitleConverter:
    """Decode the texts of ``source``, a stream of the input, and encode them into a new stream of ``output``.

    They are cut at 0 and begin before ``length`` seconds, None for all. Raises ValueError where the container has no
    kind for them.
    """

    def __init__(self, source: Any, output: Any, length: Fraction | None) -> None:
        self.damaged = 0
        """Packets that could not be decoded."""
        name = CONVERTED.get(output.format.name)
        if name is None:
            raise ValueError(f"{output.format.name} holds no text subtitles")
        self._length = math.inf if length is None else length / MILLISECOND
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self.stream = output.add_stream(name)
        self._tick = MOV_TICK if name == "mov_text" else MILLISECOND
        self.stream.time_base = self._tick
        self._encoder = self.stream.codec_context
        self._encoder.time_base = self._tick
        self._encoder.subtitle_header = self._decoder.subtitle_header

    def take(self, packet: Any) -> list[Any]:
        """Take a packet with times of the output's clock; return encoded packets."""
        from av import FFmpegError

        try:
            subtitle = self._decoder.decode2(packet)
            if not subtitle or not len(subtitle):  # an empty one ends the text before it
                return []
            start = round((packet.pts or 0) * fraction(packet.time_base) / MILLISECOND)
            end = start + self._duration(packet, subtitle)
            if end <= 0 or start >= self._length:
                return []
            start, duration = max(start, 0), end - max(start, 0)
            subtitle.start_display_time, subtitle.end_display_time, subtitle.pts = 0, duration, start * 1000
            encoded = self._encoder.encode_subtitle(subtitle)
        except FFmpegError:
            self.damaged += 1
            return []
        if not encoded.size:
            return []
        encoded.stream, encoded.time_base = self.stream, MILLISECOND
        encoded.pts, encoded.dts, encoded.duration = start, start, duration
        return [encoded]

    def finish(self) -> list[Any]:
        return []

    @staticmethod
    def _duration(packet: Any, subtitle: Any) -> int:
        """In ms."""
        shown = round((packet.duration or 0) * fraction(packet.time_base) / MILLISECOND) or subtitle.end_display_time
        return int(shown) if 0 < shown <= MAX_SECONDS * 1000 else DEFAULT_SECONDS * 1000
