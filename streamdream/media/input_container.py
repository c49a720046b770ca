"""Facts of an input file (its container) that its source and its sink must agree on.

Both open the input on their own, since decoding and copying run at different speeds: how a file is opened safely, which
video stream is the main one, the origin of the clock, the time range, the rotation, and the colours.
"""
from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, StreamdreamError, UsageError, error_text
from streamdream.media.pyav import fraction, open_av, side_data
from streamdream.media.transfer_functions import HLG, PQ

SAFE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,gif,apng,asf,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,"
                "ivf,mjpeg,mxf,nut,ogg,rm,dv,wtv,yuv4mpegpipe,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe,ppm_pipe,"
                "mp3,wav,flac,aac")
"""FFmpeg formats allowed for local files. Play lists (concat, hls, dash, ...) are not: they open other files."""
HLS_MARK = b"#EXTM3U"
NONZERO_START_FORMATS = {"mpeg", "mpegts", "rtsp", "hls"}
"""Formats whose clock may start at any time; the clock of all others starts at 0."""
MAX_LEAD_SECONDS = 60
"""Of pictures before time 0; an earlier timestamp is a wild one."""
MATRIX_DEFAULTS = {1: (1, 1), 4: (4, 4), 5: (5, 6), 6: (6, 6), 7: (7, 7), 9: (9, 14)}
"""Colour matrices that swscale supports (AVCOL_SPC numbers) -> their usual primaries and transfer."""
UNSPECIFIED = {0, 2, 3}
"""AVCOL_PRI and AVCOL_TRC numbers without a meaning."""
NUMBER = re.compile(r"%0?\d*d")


@dataclass(frozen=True)
class ColorTags:
    """How RGB was converted to YUV, in the numbers of ITU-T H.273, which FFmpeg and all containers use."""

    colorspace: int = 6
    primaries: int = 6
    trc: int = 6
    range: int = 1
    """1: 16..235, 2: 0..255."""
    tagged: bool = True
    """False where the input says nothing of its colours: they are assumed, and an output says nothing of them, too."""


BT709 = ColorTags(1, 1, 1)


def assumed_color(height: int, width: int = 0) -> ColorTags:
    """What players assume for an untagged picture: BT.709 if it is larger than that of a DVD, else BT.601."""
    return BT709 if width >= 1280 or height > 576 else ColorTags()


def color_of(picture: Any) -> ColorTags:
    """Tags of a decoded picture; those that are missing get the values that players assume."""
    assumed = assumed_color(picture.height, picture.width)
    if not is_yuv(picture.format):
        return assumed
    space = {10: 9}.get(picture.colorspace, picture.colorspace)  # swscale has no constant-luminance BT.2020
    full = picture.color_range or (2 if picture.format.name.startswith(("yuvj", "gray", "ya8", "ya16")) else 1)
    primaries, trc = picture.color_primaries, picture.color_trc
    is_tagged = space in MATRIX_DEFAULTS or not {primaries, trc} <= UNSPECIFIED
    if space not in MATRIX_DEFAULTS:
        space = 9 if primaries == 9 or trc in (PQ, HLG) else assumed.colorspace
    usual = MATRIX_DEFAULTS[space]
    return ColorTags(space, usual[0] if primaries in UNSPECIFIED else primaries,
                     usual[1] if trc in UNSPECIFIED else trc, full, is_tagged)


def tag_colorspace(picture: Any, color: ColorTags) -> None:
    """Set a picture's tags before a conversion: swscale reads them from the picture."""
    if is_yuv(picture.format):
        picture.colorspace, picture.color_range = color.colorspace, color.range


def is_yuv(format: Any) -> bool:
    return not format.is_rgb and format.name != "pal8"


@dataclass(frozen=True)
class Rotation:
    """How a stored picture becomes upright: swap its axes, then mirror rows, then columns."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def of(cls, picture: Any) -> Rotation:
        """From the display matrix: x' = a x + c y, y' = b x + d y, in units of 1/65536."""
        stored = side_data(picture, "DISPLAYMATRIX")
        if stored is None:
            degrees = picture.rotation % 360
            return cls(degrees in (90, 270), degrees in (90, 180), degrees in (180, 270))
        a, b, _, c, d = (int(number) for number in np.frombuffer(stored, np.int32)[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, b < 0, c < 0)
        return cls(False, d < 0, a < 0)

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """[H, W] or [H, W, C] -> upright, contiguous."""
        image = image.swapaxes(0, 1) if self.transpose else image
        image = image[::-1] if self.flip_rows else image
        return np.ascontiguousarray(image[:, ::-1] if self.flip_columns else image)


@dataclass(frozen=True)
class TimeRange:
    """The requested part of the input, in seconds of its clock; ``end`` None is the end of the input."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None

    @classmethod
    def of(cls, start: float = 0, duration: float = math.inf, end: float = math.inf) -> TimeRange:
        """From the user's options. Raises UsageError when the range is empty."""
        stop = min(start + duration, end)
        if stop <= start:
            raise UsageError(f"nothing lies between the start at {start:g} s and the end at {stop:g} s")
        return cls(to_fraction(start), None if math.isinf(stop) else to_fraction(stop))

    def ticks(self, origin: Fraction, tick: Fraction) -> TickRange:
        """The same range in units of ``tick`` seconds, on a clock that starts at ``origin`` seconds."""
        base = round(origin / tick)
        return TickRange(base + math.ceil(self.start / tick) if self.start else -math.inf,
                         math.inf if self.end is None else base + math.ceil(self.end / tick),
                         base + round(self.start / tick))


@dataclass(frozen=True)
class TickRange:
    """Times from ``first`` up to, but not including, ``end``; the time ``shift`` becomes 0."""

    first: float
    """Minus infinity without a start: packets before 0 are needed to start the decoder."""
    end: float
    shift: int


def to_fraction(seconds: float) -> Fraction:
    """The nearest simple fraction: 0.1 is 1/10, not its binary approximation."""
    return Fraction(seconds).limit_denominator(1_000_000)


def is_pattern(path: str) -> bool:
    """Whether it names a sequence of pictures, as ``frame_%04d.png`` does."""
    return NUMBER.search(Path(path).name) is not None


def sequence_files(pattern: str) -> dict[int, Path]:
    """The existing files that match a pattern, by their numbers."""
    before, after = (re.escape(part) for part in NUMBER.split(Path(pattern).name, maxsplit=1))
    name = re.compile(f"{before}([0-9]+){after}")
    return {int(match[1]): file for file in Path(pattern).parent.iterdir() if (match := name.fullmatch(file.name))}


def open_file(path: str, hwaccel: Any = None, **options: str) -> Any:
    """Open a local file in such a way that FFmpeg reads no other file. Raises SourceError or UsageError.

    ``hwaccel`` is PyAV's ``HWAccel``, ``options`` are of FFmpeg's demuxer.
    """
    file = Path(path)
    if not file.exists():
        close = difflib.get_close_matches(file.name, (p.name for p in file.parent.glob("*")), n=2, cutoff=0.8)
        raise UsageError(f"no such file: {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    if file.is_dir():
        raise UsageError(f"{path} is a folder, not a video; pictures are given by a pattern such as {file}/%04d.png")
    if file.is_file() and not file.stat().st_size:
        raise SourceError(f"{path} is empty")
    try:
        with file.open("rb") as opened:
            is_list = opened.read(len(HLS_MARK)) == HLS_MARK if file.is_file() else False
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error_text(error)}") from None
    if is_list:
        raise SourceError(f"{path} is a play list (HLS), which may name any file, so it is read over http only; "
                          f"ffmpeg -i {path} -c copy film.mkv makes a video of it")
    # FFmpeg takes most JPEG files for a numbered sequence, which may read other files.
    format = "jpeg_pipe" if file.suffix.lower() in (".jpg", ".jpeg") else None
    # An absolute path cannot be taken for "protocol:name".
    return open_container(str(file.absolute()), f"{path} is damaged, or not a video", format=format,
                          hwaccel=hwaccel,
                          options={"protocol_whitelist": "file", "format_whitelist": SAFE_FORMATS, **options})


def open_container(target: Any, failure: str, error: type[StreamdreamError] = SourceError, **options: Any) -> Any:
    """Open with PyAV. Raises ``error`` with the text ``failure`` and FFmpeg's reason."""
    import av

    try:
        return open_av(target, **options)
    except (av.FFmpegError, ValueError) as cause:
        raise error(f"{failure} ({error_text(cause)})") from None


def is_attached_picture(stream: Any) -> bool:
    """Whether a stream is a cover or a thumbnail, not a video."""
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def main_video_stream(container: Any) -> Any:
    """The video stream that players show, or None: no cover; of several the one that is marked as the default, then the
    largest, then that of the highest bit rate, then the first. A stream of several sizes (HLS) marks none.
    """
    streams = [stream for stream in container.streams.video if not is_attached_picture(stream)]
    return max(streams, key=_rank, default=None)


def _rank(stream: Any) -> tuple[bool, bool, int, int]:
    from av.stream import Disposition

    codec = stream.codec_context
    bit_rate = int(stream.metadata.get("variant_bitrate", 0)) or (codec and codec.bit_rate) or 0
    return (codec is not None, bool(stream.disposition & Disposition.default),
            codec.width * codec.height if codec else 0, bit_rate)


def clock_origin(container: Any) -> Fraction:
    """The time at which the clock of the input starts, in seconds: below 0 where the pictures begin before 0."""
    if NONZERO_START_FORMATS & set(container.format.name.split(",")):
        return Fraction(container.start_time or 0, 1_000_000)
    stream = main_video_stream(container)
    start = Fraction(0) if stream is None else (stream.start_time or 0) * fraction(stream.time_base, Fraction(1, 1000))
    return start if -MAX_LEAD_SECONDS <= start < 0 else Fraction(0)


def stated_end(container: Any, stream: Any) -> Fraction | None:
    """Where the header says that a stream ends, in seconds of the container's clock; None when it does not say."""
    if stream.duration:
        return int((stream.start_time or 0) + stream.duration) * fraction(stream.time_base, Fraction(1, 1000))
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return Fraction(int(tag[1]) * 3600 + int(tag[2]) * 60) + Fraction(tag[3])
    if container.duration and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    return None
