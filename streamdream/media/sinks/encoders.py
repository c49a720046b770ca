"""Choose container, encoder, size, colours and ticks of a video file: tables, and the rules that read them.

The pixel format is chosen in pixel_formats.py, the encoder's options in encoder_options.py.
"""
from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any

from streamdream.errors import UnknownName, UsageError
from streamdream.media.input_container import ColorTags, assumed_color
from streamdream.media.pyav import open_av
from streamdream.system import process_tuning


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
    hdr_codec: str = ""
    """As ``codec``, for HDR pictures; "" where its players show none."""
    gpu_codecs: tuple[str, ...] = ()
    """Kinds of video that GPUs encode, such as h264, for ``-c:v gpu``."""
    shortest: Fraction = Fraction(0)
    """How long it shows a picture at least, in seconds; of faster ones some are left out."""
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
log = logging.getLogger(__name__)
GPU_CODECS = ("h264", "hevc")
MP4 = Container("mp4", "libx264", MP4_OPTIONS, hdr_codec="libx265", gpu_codecs=GPU_CODECS,
                recording_options=MP4_RECORDING)
CONTAINERS = {
    ".mp4": MP4,
    ".m4v": MP4,
    ".mov": replace(MP4, format="mov"),
    ".mkv": Container("matroska", "libx264", MATROSKA_OPTIONS, hdr_codec="libx265", gpu_codecs=GPU_CODECS,
                      recording_options=MATROSKA_RECORDING),
    ".webm": Container("webm", "libvpx-vp9", MATROSKA_OPTIONS, hdr_codec="libsvtav1", gpu_codecs=("av1",),
                       recording_options=MATROSKA_RECORDING),
    ".avi": Container("avi", "mpeg4", {"avoid_negative_ts": "disabled"}, Fraction(0), tags_color=False),
    # Browsers show a picture of up to 10 ms, in a GIF of less than 20 ms, for 100 ms. 60 a second stay.
    ".webp": Container("webp", "libwebp_anim", {"loop": "0"}, Fraction(1, 1000), tags_color=False,
                       shortest=Fraction(16, 1000)),
    ".apng": Container("apng", "apng", {"plays": "0"}, Fraction(1, 90000), tags_color=False,
                       shortest=Fraction(16, 1000)),
    ".gif": Container("gif", "gif", tick=Fraction(1, 100), tags_color=False, shortest=Fraction(1, 50)),
}
PIPES = {
    ".nut": Container("nut", "rawvideo", tags_color=False),
    ".y4m": Container("yuv4mpegpipe", "wrapped_avframe", {"strict": "-1"}, tick=Fraction(0), tags_color=False),
    ".mkv": Container("matroska", "ffv1", MATROSKA_OPTIONS | {"flush_packets": "1"}, hdr_codec="ffv1"),
}
"""Containers that ``-o -`` writes to the standard output; ``-`` alone is the first."""


@dataclass(frozen=True)
class Encoder:
    """Special properties of an encoder; one without a row in ``ENCODERS`` has none."""

    options: dict[str, str] = field(default_factory=dict)
    presets: dict[str, str] = field(default_factory=dict)
    """Legal names of speeds -> the encoder's own; empty where any goes to FFmpeg."""
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
    formats: tuple[str, ...] = ()
    """Pixel formats that players of its files show; the nearest to that of the source is used."""
    hdr: bool = False
    """Whether players take what it writes for HDR, if it has the tags of HDR."""
    limited_range: bool = False
    """Whether it has no tag for samples of the full range."""
    min_width: int = 0
    """Of narrower pictures it writes beyond its memory."""
    threads: int = 4
    """Its bytes depend on their number, which therefore does not follow the machine. 0 is one for each core, where they
    do not.
    """


PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
SAME_PRESETS = {name: name for name in PRESETS}
X264 = Encoder({"preset": "veryfast"}, SAME_PRESETS, (0, 51), tags_color=True)
MPEG4 = Encoder(tick=Fraction(1, 30000), odd_sizes=True, limited_range=True)
PRORES = Encoder(formats=("yuv422p10le", "yuva444p10le"), tags_color=True, hdr=True, limited_range=True, threads=0)
UP_TO_10_BITS = ("yuv420p", "yuv420p10le")
LOSSLESS_ENCODER = Encoder(odd_sizes=True, hdr=True, threads=0)
Y4M_FORMATS = tuple(f"yuv{kind}p{depth}" for depth in ("", "10le", "12le") for kind in ("420", "422", "444"))
ENCODERS = {
    "libx264": X264,
    "libx264rgb": X264,
    "libx265": Encoder({"preset": "veryfast", "x265-params": "log-level=none"}, SAME_PRESETS, (0, 51), tags_color=True,
                       formats=UP_TO_10_BITS, hdr=True, min_width=64),
    "libsvtav1": Encoder({"preset": "10"}, crf=(1, 63), tags_color=True, formats=UP_TO_10_BITS, hdr=True,
                         threads=0),
    "libvpx-vp9": Encoder({"deadline": "realtime", "cpu-used": "6", "row-mt": "1"}, tags_color=True, odd_sizes=True,
                          formats=UP_TO_10_BITS, hdr=True),
    # Below 0 it keeps that speed; above, it takes what the processor has time for, and its bytes differ each time.
    "libvpx": Encoder({"deadline": "realtime", "cpu-used": "-4"}, crf=(4, 63), bit_rate=50_000_000, color=ColorTags(),
                      odd_sizes=True),
    "mpeg2video": Encoder(tick=Fraction(0), tags_color=True, limited_range=True),
    "mpeg4": MPEG4,
    "msmpeg4": MPEG4,
    "mjpeg": Encoder(color=ColorTags(5, 6, 6, 2), odd_sizes=True, formats=("yuvj420p", "yuvj422p")),
    "prores_ks": PRORES,
    "prores": PRORES,
    "prores_aw": PRORES,
    # The old profiles of DNxHD know a few sizes only.
    "dnxhd": Encoder({"profile": "dnxhr_hq"}, formats=("yuv422p",), limited_range=True, threads=0),
    "libwebp_anim": Encoder(odd_sizes=True, formats=("yuv420p", "bgra"), color=ColorTags(), threads=0),
    "apng": Encoder(formats=("rgb24", "rgba", "rgb48be"), threads=0),
    "ffv1": LOSSLESS_ENCODER,
    "ffvhuff": LOSSLESS_ENCODER,
    "rawvideo": LOSSLESS_ENCODER,
    "wrapped_avframe": replace(LOSSLESS_ENCODER, formats=Y4M_FORMATS),
}
GPU_MAKERS = ("nvenc", "qsv", "amf", "videotoolbox")
"""How the names of encoders that run on a GPU end, as in h264_nvenc; tried in this order."""
GPU_FORMATS = ("yuv420p", "nv12", "p010le")
NVENC_PRESETS = {**{f"p{number}": f"p{number}" for number in range(1, 8)},
                 **dict(zip(PRESETS, ("p1", "p1", "p2", "p3", "p3", "p4", "p5", "p6", "p7", "p7"), strict=True))}
"""Its own, from fast to good, and x264's; FFmpeg's slow and fast of NVENC would be p7 and p1."""
MAX_TICKS = 2_000_000
"""Of a second, where a finer time base than that of the source is chosen; containers count them in 32 bits."""


def check_width(name: str, width: int, other: str) -> None:
    """Raise UsageError where pictures are too narrow for the encoder ``name``; ``other`` is one that takes them."""
    if width < (least := encoder_row(name).min_width):
        raise UsageError(f"{name} takes pictures of {least} pixels of width or more, not {width}; -c:v {other} can")


def encoder_row(name: str) -> Encoder:
    """What is special about an encoder."""
    kind, _, maker = name.rpartition("_")
    if maker in GPU_MAKERS:
        is_deep, is_nvenc = kind != "h264", maker == "nvenc"
        return Encoder({}, NVENC_PRESETS if is_nvenc else {}, (0, 63 if is_nvenc and kind == "av1" else 51),
                       tags_color=True, formats=GPU_FORMATS if is_deep else GPU_FORMATS[:2], hdr=is_deep)
    return ENCODERS.get(name, Encoder())


def find_codec(name: str, container: Container, hdr: bool = False, width: int = 0) -> Any:
    """The PyAV codec for ``-c:v name``; ``hdr`` pictures have defaults of their own, if they are wide enough for these.
    Raises UnknownName, UsageError.
    """
    from av.codec.codec import Codec, UnknownCodecError

    if name == "gpu":
        name = find_gpu_encoder(container.gpu_codecs, hdr) or "auto"
        if name == "auto":
            say_once(f"no GPU of this machine encodes for {container.format}; the processor does")
    if name == "auto":
        is_wide = not width or width + 1 >= encoder_row(container.hdr_codec).min_width  # an odd width is padded
        name = (hdr and is_wide and container.hdr_codec) or container.codec
    try:
        codec = Codec(name, "w")
    except UnknownCodecError:
        raise UnknownName("encoder", name, video_encoders(), "python -m av --codecs") from None
    if codec.type != "video":
        raise UsageError(f"{name} is an encoder for {codec.type}; -c:v takes one for video")
    return codec


@cache
def say_once(text: str) -> None:
    log.warning("%s", text)


@cache
def find_gpu_encoder(kinds: tuple[str, ...], hdr: bool = False) -> str:
    """The first encoder for one of these kinds of video that a GPU of this machine runs; "" where there is none."""
    names = [f"{kind}_{maker}" for maker in GPU_MAKERS for kind in kinds]
    return next((name for name in names if encoder_row(name).hdr >= hdr and runs_here(name)), "")


def runs_here(name: str) -> bool:
    """Whether an encoder opens, with a small picture."""
    from av import FFmpegError
    from av.codec.codec import UnknownCodecError
    from av.codec.context import CodecContext

    try:
        context: Any = CodecContext.create(name, "w")
        context.width, context.height, context.time_base = 320, 240, Fraction(1, 25)
        context.pix_fmt = next(format.name for format in context.codec.video_formats if format.name in GPU_FORMATS)
        with process_tuning.preserve_scheduling():
            context.open()
    except (FFmpegError, UnknownCodecError, ValueError, StopIteration):
        return False
    return True


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


def supported_codecs(container: str) -> set[str]:
    """Names of the encoders and decoders whose streams a container can hold, by FFmpeg's name of it."""
    with open_av(io.BytesIO(), "w", format=container) as output:
        return set(output.supported_codecs)


def stored_size(width: int, height: int, pixels: str, encoder: Encoder) -> tuple[int, int]:
    """Size in pixels, padded where the encoder takes whole samples of colour only."""
    from av import VideoFormat

    if encoder.odd_sizes:
        return width, height
    format = VideoFormat(pixels, 8, 8)
    across, down = 8 // format.chroma_width(8), 8 // format.chroma_height(8)
    return -(-width // across) * across, -(-height // down) * down


def stored_color(color: ColorTags, height: int, container: Container, encoder: Encoder) -> ColorTags:
    """The colours of the source; without colour tags in the output, those that players assume."""
    if encoder.color:
        return encoder.color
    color = color if container.tags_color or encoder.tags_color else assumed_color(height)
    return replace(color, range=1) if encoder.limited_range else color


def stored_tick(time_base: Fraction, rate: Fraction, container: Container, encoder: Encoder) -> Fraction:
    """Time base in seconds: that of the source where possible, so that timestamps stay exact.

    Where it is too coarse for a constant rate, as milliseconds are for 30000/1001 frames a second, both fit.
    """
    tick = container.tick
    if tick is not None:
        return tick or 1 / rate
    exact = math.lcm(time_base.denominator, rate.numerator)
    tick = Fraction(1, exact) if (1 / rate / time_base).denominator > 1 and exact <= MAX_TICKS else time_base
    if encoder.tick is not None and tick.denominator > encoder.tick.denominator:
        tick = encoder.tick or 1 / rate
        if tick.numerator == 1 and rate.numerator <= tick.denominator:
            tick = Fraction(1, tick.denominator // rate.numerator * rate.numerator)
    return tick
