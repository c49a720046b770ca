"""What source and sink both know of an input file besides its pictures, and the copying of that into the output.

The source and the sink each open the input on their own (decoding and copying run at different paces), so what they
must agree on is here: how it is opened safely, which stream is dreamed, where its clock starts, which part is wanted,
which way is up, what its colours mean.
"""
from __future__ import annotations

import dataclasses
import difflib
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, StreamdreamError, UsageError
from streamdream.media.pyav import fraction, open_av

SAFE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,gif,apng,asf,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,"
                "ivf,mjpeg,mxf,nut,ogg,rm,dv,wtv,yuv4mpegpipe,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe,"
                "mp3,wav,flac,aac")
"""What a local file may be. Play lists (concat, hls, dash, ...) are left out: they open other files."""
FREE_CLOCKS = {"mpeg", "mpegts", "rtsp", "hls"}
"""Formats whose clock starts anywhere; that of all others starts at 0."""
MATRIX_DEFAULTS = {1: (1, 1), 4: (4, 4), 5: (5, 6), 6: (6, 6), 7: (7, 7), 9: (9, 14)}
"""Colour matrices swscale knows (AVCOL_SPC numbers) -> the primaries and transfer that go with them."""
UNKNOWN = {0, 2, 3}
"""AVCOL_PRI and AVCOL_TRC numbers that say nothing."""
NUMBER = re.compile(r"%0?\d*d")
COVER_TYPES = {"mjpeg": "jpeg", "png": "png"}
STALE_TAGS = re.compile(r"encoder|major_brand|minor_version|compatible_brands|vendor_id|rotate|name"
                        r"|(duration|bps|number_of_|_statistics).*", re.IGNORECASE)
"""Metadata that describe the file they were found in, and are wrong or made anew in another."""


@dataclass(frozen=True)
class ColorTags:
    """How RGB became YUV, in the numbers of ITU-T H.273, as FFmpeg's AVCOL_* and every container use them."""

    colorspace: int = 6
    primaries: int = 6
    trc: int = 6
    range: int = 1
    """1: 16..235, 2: 0..255."""


def assumed_color(height: int) -> ColorTags:
    """What players assume for an untagged picture of ``height`` lines: BT.709 from 720 on, else BT.601."""
    return ColorTags(1, 1, 1) if height >= 720 else ColorTags()


def color_of(picture: Any, height: int) -> ColorTags:
    """Tags of a decoded picture that is ``height`` lines when upright; what it leaves open is assumed."""
    space = {10: 9}.get(picture.colorspace, picture.colorspace)  # swscale has no constant-luminance BT.2020
    if not is_yuv(picture.format):
        return assumed_color(height)
    full = picture.color_range or (2 if picture.format.name.startswith("yuvj") else 1)
    if space not in MATRIX_DEFAULTS:
        return dataclasses.replace(assumed_color(height), range=full)
    primaries, trc = MATRIX_DEFAULTS[space]
    return ColorTags(space, primaries if picture.color_primaries in UNKNOWN else picture.color_primaries,
                     trc if picture.color_trc in UNKNOWN else picture.color_trc, full)


def tag(picture: Any, color: ColorTags) -> None:
    """Before a conversion: swscale goes by the tags of the picture itself."""
    if is_yuv(picture.format):
        picture.colorspace, picture.color_range = color.colorspace, color.range


def is_yuv(format: Any) -> bool:
    return not format.is_rgb and format.name != "pal8"


@dataclass(frozen=True)
class Turn:
    """How a stored picture becomes upright: swap its axes, then mirror rows, then columns."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def of(cls, picture: Any) -> Turn:
        """From the display matrix: x' = a x + c y, y' = b x + d y, in units of 1/65536."""
        stored = picture.side_data.get("DISPLAYMATRIX")
        if stored is None:
            return cls()
        a, b, _, c, d = (int(number) for number in np.frombuffer(bytes(stored), np.int32)[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, b < 0, c < 0)
        return cls(False, d < 0, a < 0)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3] -> upright, contiguous."""
        image = image.transpose(1, 0, 2) if self.transpose else image
        image = image[::-1] if self.flip_rows else image
        return np.ascontiguousarray(image[:, ::-1] if self.flip_columns else image)


@dataclass(frozen=True)
class Span:
    """The part of the input that is wanted, in seconds of its clock; ``end`` None is up to its end."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None

    @classmethod
    def of(cls, start: float = 0, duration: float = math.inf, end: float = math.inf) -> Span:
        """From what the user gave. Raises UsageError when nothing lies between."""
        stop = min(start + duration, end)
        if stop <= start:
            raise UsageError(f"nothing lies between the start at {start:g} s and the end at {stop:g} s")
        return cls(exact(start), None if math.isinf(stop) else exact(stop))

    def window(self, origin: Fraction, tick: Fraction) -> Window:
        """The same in units of ``tick`` seconds, on a clock that starts at ``origin`` seconds."""
        base = round(origin / tick)
        return Window(base + math.ceil(self.start / tick) if self.start else -math.inf,
                      math.inf if self.end is None else base + math.ceil(self.end / tick),
                      base + round(self.start / tick))


@dataclass(frozen=True)
class Window:
    """Times from ``first`` on and before ``end`` are wanted; ``shift`` becomes 0."""

    first: float
    """Minus infinity without a start: what lies before 0 is what a decoder needs to get going."""
    end: float
    shift: int


def exact(seconds: float) -> Fraction:
    """The number that was meant: 0.1 is 1/10, not the binary fraction beside it."""
    return Fraction(seconds).limit_denominator(1_000_000)


def reason(error: BaseException) -> str:
    """Why FFmpeg or the system failed, in its words but without its numbers."""
    return str(getattr(error, "strerror", None) or error).lower()


def is_pattern(path: str) -> bool:
    """Does it name a sequence of pictures, as ``frame_%04d.png`` does?"""
    return NUMBER.search(Path(path).name) is not None


def pictures_of(pattern: str) -> dict[int, Path]:
    """The files that a pattern names, by their numbers."""
    before, after = (re.escape(part) for part in NUMBER.split(Path(pattern).name, maxsplit=1))
    shape = re.compile(f"{before}([0-9]+){after}")
    return {int(match[1]): file for file in Path(pattern).parent.iterdir() if (match := shape.fullmatch(file.name))}


def open_file(path: str) -> Any:
    """A local file, opened so that it can make FFmpeg read no other file. Raises SourceError or UsageError."""
    file = Path(path)
    if not file.exists():
        close = difflib.get_close_matches(file.name, (p.name for p in file.parent.glob("*")), n=2, cutoff=0.7)
        raise UsageError(f"no such file: {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
    if file.is_dir():
        raise UsageError(f"{path} is a folder, not a video; pictures are given by a pattern such as {file}/%04d.png")
    if file.is_file() and not file.stat().st_size:
        raise SourceError(f"{path} is empty")
    try:
        file.open("rb").close()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {reason(error)}") from None
    # An absolute path cannot be taken for "protocol:name".
    return open_container(str(file.absolute()), f"{path} is damaged, or not a video",
                          options={"protocol_whitelist": "file", "format_whitelist": SAFE_FORMATS})


def open_container(target: str, failure: str, error: type[StreamdreamError] = SourceError, **how: Any) -> Any:
    """``av.open`` whose failure is ``error`` with the text ``failure``."""
    import av

    try:
        return open_av(target, **how)
    except (av.FFmpegError, ValueError) as cause:
        raise error(f"{failure} ({reason(cause)})") from None


def is_cover(stream: Any) -> bool:
    """Is it a still picture that came with the sound?"""
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def first_video(container: Any) -> Any:
    """The video stream that is dreamed, or None."""
    return next((stream for stream in container.streams.video if not is_cover(stream)), None)


def clock_origin(container: Any) -> Fraction:
    """When the clock of the input starts, in seconds."""
    free = FREE_CLOCKS & set(container.format.name.split(","))
    return Fraction(container.start_time or 0, 1_000_000) if free else Fraction(0)


class Passthrough:
    """Copies what is not dreamed: sound, subtitles, attachments, covers, chapters and metadata, untouched.

    ``output`` is an av container whose header is not yet written, ``video`` its dreamed stream. What it cannot hold
    is left out and named in ``warnings``.
    """

    def __init__(self, path: str, output: Any, video: Any, span: Span, warnings: list[str]) -> None:
        self._path, self._output, self._span, self._warnings = path, output, span, warnings
        self._input = open_file(path)
        origin = clock_origin(self._input)
        self._offset = origin + span.start
        self._windows = {stream.index: span.window(origin, fraction(stream.time_base, Fraction(1, 1000)))
                         for stream in self._input.streams}
        output.metadata.update(_lasting(self._input.metadata))
        output.set_chapters(list(self._chapters()))
        self._twins = self._add_streams(video)
        self._refused: dict[int, int] = {}
        self._packets = self._read()
        self._waiting = next(self._packets, None)

    def copy_until(self, seconds: float) -> None:
        """Copies all that belongs before ``seconds`` of the output."""
        while self._waiting is not None and self._waiting[0] <= seconds:
            self._copy(self._waiting[1])
            self._waiting = next(self._packets, None)

    def close(self) -> None:
        self._waiting, self._packets = None, iter(())
        self._input.close()
        for index, count in self._refused.items():
            self._warnings.append(f"{count} damaged packets of stream {index} of {self._path} were left out")
        self._refused = {}

    def _chapters(self) -> Iterator[dict[str, Any]]:
        length = None if self._span.end is None else self._span.end - self._span.start
        for chapter in self._input.chapters():
            tick = fraction(chapter["time_base"], Fraction(1, 1000))
            start, end = (chapter[key] * tick - self._offset for key in ("start", "end"))
            start, end = max(start, Fraction(0)), end if length is None else min(end, length)
            if start < end:
                yield {**chapter, "start": round(start / tick), "end": round(end / tick)}

    def _add_streams(self, video: Any) -> dict[int, Any]:
        """Gives streams of the input a twin in the output; index -> twin."""
        from av.stream import Discard

        dreamed = first_video(self._input)
        twins = {}
        for stream in self._input.streams:
            if stream is dreamed:
                twin = video
            elif self._attach_cover(stream):
                continue
            elif self._can_hold(stream):
                twin = twins[stream.index] = self._output.add_stream_from_template(stream, opaque=True)
            elif stream.type == "data" and self._input.chapters():
                continue  # the titles of an mp4's chapters, which are copied as chapters
            else:
                self._warnings.append(f"{self._output.format.name} cannot hold stream {stream.index} of {self._path} "
                                      f"({_describe(stream)}); it is left out")
                continue
            twin.metadata.update(_lasting(stream.metadata))
            twin.disposition = stream.disposition
        for stream in self._input.streams:
            if stream.index not in twins:
                stream.discard = Discard.all
        return twins

    def _attach_cover(self, stream: Any) -> bool:
        """Matroska keeps covers as attachments. Covers come first in the input, so nothing else is passed over."""
        kind = COVER_TYPES.get(stream.codec_context.name) if stream.codec_context else None
        if not kind or not is_cover(stream) or self._output.format.name != "matroska":
            return False
        data = bytes(next(self._input.demux(stream)))
        self._output.add_attachment(f"cover.{kind}", f"image/{kind}", data)
        return True

    def _can_hold(self, stream: Any) -> bool:
        """Rehearses: some streams are refused when they are added, some only when the header is written."""
        import av

        # Others take attachments and covers without a word, and drop them or show them as video.
        only = {"attachment": "matroska", "video": "mp4", "data": ""}.get(stream.type, self._output.format.name)
        if only != self._output.format.name or (stream.type == "video" and not is_cover(stream)):
            return False
        try:
            with av.open(io.BytesIO(), "w", format=self._output.format.name) as rehearsal:
                rehearsal.add_stream_from_template(stream, opaque=True).disposition = stream.disposition
                rehearsal.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        return True

    def _read(self) -> Iterator[tuple[float, Any]]:
        """Wanted packets with their times in the output, in the order of the file."""
        from av import FFmpegError

        streams = [stream for stream in self._input.streams if stream.index in self._twins]
        streams = [stream for stream in streams if stream.type != "attachment"]
        if not streams:
            return
        time = 0.0
        try:
            if self._span.start:
                self._input.seek(int(max(self._offset - 1, Fraction(0)) * 1_000_000))
            for packet in self._input.demux(streams):
                if packet.size and self._wants(packet):
                    packet.dts = packet.pts if packet.dts is None else packet.dts
                    time = float((packet.dts or 0) * packet.time_base)
                    yield time, packet
        except FFmpegError as error:
            self._warnings.append(f"the sound of {self._path} is damaged after {time:.1f} s ({reason(error)})")

    def _wants(self, packet: Any) -> bool:
        """Moves the packet to the output's clock. Is it within the span?"""
        if is_cover(packet.stream):
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
        packet.stream = self._twins[index]
        try:
            self._output.mux_one(packet)
        except (ArgumentError, InvalidDataError):
            self._refused[index] = self._refused.get(index, 0) + 1


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    """Without what is stale. An mp4 reads a stream's title as ``name``, and writes it from ``title``."""
    lasting = {key: value for key, value in metadata.items() if not STALE_TAGS.fullmatch(key)}
    if "name" in metadata:
        lasting.setdefault("title", metadata["name"])
    return lasting


def _describe(stream: Any) -> str:
    """As in ``subtitle subrip, eng``."""
    name = stream.codec_context.name if stream.codec_context else stream.name
    return " ".join(filter(None, (stream.type, name))) + (f", {stream.language}" if stream.language else "")
