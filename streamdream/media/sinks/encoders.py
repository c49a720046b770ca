"""Choose container, encoder, pixel format and colours of a video file: tables, and the rules that read them."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from streamdream.errors import UnknownName, UsageError
from streamdream.media.input_container import ColorTags, assumed_color
from streamdream.settings import RenderSettings


@dataclass(frozen=True)
class Container:
    """The container for a file extension."""

    format: str
    codec: str
    """Used for ``-c:v auto``."""
    options: dict[str, str] = field(default_factory=dict)
    tick: Fraction | None = None
    """Its only time base, in seconds; 0 is one frame; None is that of the source. With one, it starts at time 0."""
    tags_color: bool = True
    """Whether it stores colour tags for all encoders."""
    recording_options: dict[str, str] = field(default_factory=lambda: {"flush_packets": "1"})
    """With them (and ``options``) an unfinished file plays, up to its last second or two."""


# Edit lists have their own time base, by default milliseconds, which would round the length.
MP4_OPTIONS = {"movflags": "+faststart", "movie_timescale": "90000"}
# Sound of an mp4 starts slightly before 0. Matroska can store that; FFmpeg's default moves all pictures instead.
MATROSKA_OPTIONS = {"avoid_negative_ts": "disabled"}
# Fragments of half a second. The end of the file turns them into an ordinary video in place, without a copy.
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
    """Special properties of an encoder; one without a row in ``ENCODERS`` has none."""

    options: dict[str, str] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    crf: tuple[int, int] = (0, 63)
    """Minimum and maximum."""
    bit_rate: int = 0
    """Maximum in bits/s, for encoders that need it beside crf."""
    tick: Fraction | None = None
    """Used when the source's time base is finer than it can store; 0 is always one frame."""
    color: ColorTags | None = None
    """The only colours it supports."""
    tags_color: bool = False
    """Whether it stores colour tags in all containers."""
    odd_sizes: bool = False
    """Whether it supports odd sizes with subsampled colour."""


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
    """The PyAV codec for ``-c:v name``. Raises UnknownName or UsageError."""
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
    """Names of the video encoders of this FFmpeg."""
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
    """RGB for a lossless encoder, since YUV is lossy; else YUV 4:2:0, which all players support."""
    offered = [format.name for format in codec.video_formats or ()]
    lossless = codec.properties & LOSSLESS and not codec.properties & LOSSY_CODECS
    preferred = RGB_FORMATS + YUV_FORMATS if lossless else YUV_FORMATS + RGB_FORMATS
    return next((name for name in preferred if name in offered), offered[0] if offered else "yuv420p")


def stored_size(width: int, height: int, pixels: str, encoder: Encoder) -> tuple[int, int]:
    """Size in pixels, padded to even numbers where the encoder needs them."""
    if encoder.odd_sizes or not {"yuv420p", "yuvj420p", "nv12", "yuv420p10le", "yuv422p", "yuv422p10le"} & {pixels}:
        return width, height
    return width + width % 2, height + height % (1 if "422" in pixels else 2)


def stored_color(color: ColorTags, height: int, container: Container, encoder: Encoder) -> ColorTags:
    """The colours of the source; without colour tags in the output, those that players assume."""
    if encoder.color:
        return encoder.color
    return color if container.tags_color or encoder.tags_color else assumed_color(height)


def stored_tick(time_base: Fraction, rate: Fraction, container: Container, encoder: Encoder) -> Fraction:
    """Time base in seconds: that of the source where possible, so that timestamps stay exact."""
    tick = container.tick
    if tick is None and encoder.tick is not None and time_base.denominator > encoder.tick.denominator:
        tick = encoder.tick
    return time_base if tick is None else tick or 1 / rate


def set_quality(context: Any, encoder: Encoder, settings: RenderSettings, warnings: list[str]) -> dict[str, str]:
    """Return the options of the encoder, and set the rest on ``context``. Raises UnknownName for a wrong preset."""
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
    elif "mpv_flags" in known or context.name == "mjpeg":  # the MPEG family has a scale of 1 to 31
        context.qmin = context.qmax = max(1, min(31, settings.crf // 4))
    context.bit_rate = encoder.bit_rate
    return options
