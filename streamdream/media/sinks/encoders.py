"""Which container, encoder, pixel format and colours a video file gets: tables, and the rules that read them."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from streamdream.errors import UnknownName, UsageError
from streamdream.media.container import ColorTags, assumed_color
from streamdream.settings import RenderSettings


@dataclass(frozen=True)
class Container:
    """What the extension of a file name asks for."""

    format: str
    codec: str
    """Used for ``-c:v auto``."""
    options: dict[str, str] = field(default_factory=dict)
    tick: Fraction | None = None
    """Its only unit of time, in seconds; 0 is one frame; None is that of the source. With one, it starts at time 0."""
    tags_color: bool = True
    """Does it store colour tags, whatever the encoder?"""
    recording_options: dict[str, str] = field(default_factory=lambda: {"flush_packets": "1"})
    """Beside ``options``: with them a file plays at any moment of its making, up to the last second or two."""


# Edit lists count in a unit of their own, by default milliseconds, which would round the length.
MP4_OPTIONS = {"movflags": "+faststart", "movie_timescale": "90000"}
# Sound from an mp4 starts a little before 0. Matroska can hold that, but FFmpeg would rather move all pictures.
MATROSKA_OPTIONS = {"avoid_negative_ts": "disabled"}
# Fragments of half a second. What ends the file makes them an ordinary video where they lie: that needs no room for a
# copy, and no time.
MP4_RECORDING = {"flush_packets": "1", "movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "500000",
                 "frag_size": "65536"}
MATROSKA_RECORDING = {"flush_packets": "1", "cluster_time_limit": "500", "cluster_size_limit": "65536"}
CONTAINERS = {
    ".mp4": Container("mp4", "libx264", MP4_OPTIONS, recording_options=MP4_RECORDING),
    ".m4v": Container("mp4", "libx264", MP4_OPTIONS, recording_options=MP4_RECORDING),
    ".mov": Container("mov", "libx264", MP4_OPTIONS, recording_options=MP4_RECORDING),
    ".mkv": Container("matroska", "libx264", MATROSKA_OPTIONS, recording_options=MATROSKA_RECORDING),
    ".webm": Container("webm", "libvpx-vp9", MATROSKA_OPTIONS, recording_options=MATROSKA_RECORDING),
    ".avi": Container("avi", "mpeg4", tick=Fraction(0), tags_color=False),
    ".gif": Container("gif", "gif", tick=Fraction(1, 100), tags_color=False),
}


@dataclass(frozen=True)
class Encoder:
    """What is special about an encoder; one without a row is ordinary."""

    options: dict[str, str] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    crf: tuple[int, int] = (0, 63)
    """The least and the most it takes."""
    bit_rate: int = 0
    """A ceiling in bits/s, for one that wants it beside crf."""
    tick: Fraction | None = None
    """Used when the source's unit of time is finer than it can store; 0 is one frame, always."""
    color: ColorTags | None = None
    """The only colours it has."""
    tags_color: bool = False
    """Does it store colour tags, whatever the container?"""
    odd_sizes: bool = False
    """Does it take them when colour is at half size?"""


PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
X264 = Encoder({"preset": "veryfast"}, PRESETS, (0, 51), tags_color=True)
MPEG4 = Encoder(tick=Fraction(1, 30000), odd_sizes=True)
ENCODERS = {
    "libx264": X264,
    "libx264rgb": X264,
    "libx265": Encoder({"preset": "veryfast", "x265-params": "log-level=none"}, PRESETS, (0, 51), tags_color=True),
    "libsvtav1": Encoder({"preset": "10"}, crf=(1, 63), tags_color=True),
    "libvpx-vp9": Encoder({"deadline": "realtime", "cpu-used": "6", "row-mt": "1"}, tags_color=True, odd_sizes=True),
    "libvpx": Encoder({"deadline": "realtime", "cpu-used": "6"}, crf=(4, 63), bit_rate=50_000_000, color=ColorTags(),
                      odd_sizes=True),
    "mpeg2video": Encoder(tick=Fraction(0), tags_color=True),
    "mpeg4": MPEG4,
    "msmpeg4": MPEG4,
    "mjpeg": Encoder(color=ColorTags(5, 6, 6, 2), odd_sizes=True),
}
RGB_FORMATS = ("gbrp", "rgb24", "bgr24", "bgr0", "bgra", "pal8")
YUV_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv422p10le", "yuv420p10le", "nv12")
LOSSY_CODECS, LOSSLESS = 2, 4
"""FFmpeg's AV_CODEC_PROP_*."""


def find_codec(name: str, container: Container) -> Any:
    """The av codec for ``-c:v name``. Raises UnknownName or UsageError."""
    from av.codec.codec import Codec, UnknownCodecError

    name = container.codec if name == "auto" else name
    try:
        codec = Codec(name, "w")
    except UnknownCodecError:
        raise UnknownName("encoder", name, video_encoders(), "python -m av --codecs") from None
    if codec.type != "video":
        raise UsageError(f"{name} is an encoder for {codec.type}; -c:v takes one for video")
    return codec


def video_encoders(among: Iterable[str] | None = None) -> list[str]:
    """Names of all video encoders that this FFmpeg has."""
    import av
    from av.codec.codec import Codec, UnknownCodecError

    names = []
    for name in sorted(av.codecs_available if among is None else among):
        try:
            codec = Codec(name, "w")
        except UnknownCodecError:
            continue
        if codec.type == "video" and codec.name == name:
            names.append(name)
    return names


def pixel_format(codec: Any) -> str:
    """RGB for a lossless encoder, since YUV would lose some; else YUV with colour at half size, as all players know."""
    offered = [format.name for format in codec.video_formats or ()]
    lossless = codec.properties & LOSSLESS and not codec.properties & LOSSY_CODECS
    wanted = RGB_FORMATS + YUV_FORMATS if lossless else YUV_FORMATS + RGB_FORMATS
    return next((name for name in wanted if name in offered), offered[0] if offered else "yuv420p")


def stored_size(width: int, height: int, pixels: str, encoder: Encoder) -> tuple[int, int]:
    """Size in pixels with what has to be added to it."""
    if encoder.odd_sizes or not {"yuv420p", "yuvj420p", "nv12", "yuv420p10le", "yuv422p", "yuv422p10le"} & {pixels}:
        return width, height
    return width + width % 2, height + height % (1 if "422" in pixels else 2)


def stored_color(color: ColorTags, height: int, container: Container, encoder: Encoder) -> ColorTags:
    """Colours as the source has them, unless nothing in the output can say so: then what a player will assume."""
    if encoder.color:
        return encoder.color
    return color if container.tags_color or encoder.tags_color else assumed_color(height)


def stored_tick(time_base: Fraction, rate: Fraction, container: Container, encoder: Encoder) -> Fraction:
    """Unit of time in seconds: the source's, so that its times stay exact, where that is possible."""
    tick = container.tick
    if tick is None and encoder.tick is not None and time_base.denominator > encoder.tick.denominator:
        tick = encoder.tick
    return time_base if tick is None else tick or 1 / rate


def set_quality(context: Any, encoder: Encoder, settings: RenderSettings, warnings: list[str]) -> dict[str, str]:
    """Options of the encoder; sets on ``context`` what is not an option. Raises UnknownName for a wrong preset."""
    known = {option.name: option for option in context.supported_options.private}
    options = dict(encoder.options)
    if settings.encoder_preset != "auto":
        if "preset" not in known:
            warnings.append(f"{context.name} has no presets; {settings.encoder_preset!r} was not used")
        elif encoder.presets and settings.encoder_preset not in encoder.presets:
            raise UnknownName(f"preset of {context.name}", settings.encoder_preset, encoder.presets)
        else:
            options["preset"] = settings.encoder_preset
    quality = str(min(max(settings.crf, encoder.crf[0]), encoder.crf[1]))
    if "crf" in known:
        options["crf"] = quality
    elif "cq" in known:
        options["cq"] = quality
    elif "mpv_flags" in known or context.name == "mjpeg":  # the MPEG family counts from 1 to 31
        context.qmin = context.qmax = max(1, min(31, settings.crf // 4))
    context.bit_rate = encoder.bit_rate
    return options
