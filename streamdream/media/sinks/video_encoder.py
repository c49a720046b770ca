"""Encode the pictures of one video stream: pictures in, packets with exact times and durations out."""
from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, UsageError, error_text
from streamdream.media import planes
from streamdream.media.frame import Picture, picture_size
from streamdream.media.sinks.encoder_options import X264_ENCODERS, encoder_options, join_option
from streamdream.media.sinks.encoders import (
    ENCODERS,
    Container,
    Encoder,
    check_width,
    encoder_row,
    find_codec,
    stored_size,
    supported_codecs,
    video_encoders,
)
from streamdream.media.sinks.picture_clock import Thinning, new_clock, stored_rate
from streamdream.media.sinks.picture_converter import converter
from streamdream.media.sinks.pixel_formats import StoredPictures, wants_hdr
from streamdream.settings import RenderSettings
from streamdream.system import process_tuning

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

FRAME_DURATION, GLOBAL_HEADER = 1 << 8, 1 << 22
"""FFmpeg's AV_CODEC_FLAG_*: frames have durations; the stream's header is kept outside of its packets."""
NEEDS_GLOBAL_HEADER = 1 << 6
"""FFmpeg's AVFMT_GLOBALHEADER."""
MAX_REORDER_SECONDS = 10_000_000
"""Between the decoding of a picture and its show; a wild timestamp may be hours away."""
MP4_FORMATS = ("mp4", "mov")
REFUSALS = re.compile(r"unknown option|error parsing option|invalid value|failed to parse|error setting option", re.I)
"""What FFmpeg prints where an encoder's own parser refuses a parameter; it goes on without it."""


def check_size(picture: Picture, source: Source, name: str) -> None:
    """Raise ValueError where a picture for the output ``name`` has not the size of its source."""
    height, width = picture_size(picture)
    if (width, height) != (source.width, source.height):
        raise ValueError(f"{name} takes pictures of {source.width}x{source.height}, not {width}x{height}")


class VideoEncoder:
    """One encoder in ``output``, an av container that is not yet started.

    ``kind`` is the container of the result, which decides codec, time base and colours; ``output`` may be another one
    that holds the packets until then. Raises UsageError or UnknownName for settings that do not work, SinkError for an
    encoder that cannot run here.
    """

    def __init__(self, output: Any, kind: Container, name: str, source: Source, settings: RenderSettings) -> None:
        self.warnings: list[str] = []
        self._kind, self._name, self._source = kind, name, source
        self._pending: tuple[Any, int] | None = None
        self._durations: dict[int, int] = {}
        codec = find_codec(settings.codec, kind, wants_hdr(source, settings), source.width)
        self.stream = self._add_stream(output, codec, encoder_row(codec.name), settings)
        self._convert = converter(self._stored.pixels, self._stored.color, source.color, self._stored.tone_map,
                                  self._stored.alpha_lost)

    def _add_stream(self, output: Any, codec: Any, encoder: Encoder, settings: RenderSettings) -> Any:
        source, suffix = self._source, Path(self._name).suffix
        if codec.name not in (supported := supported_codecs(self._kind.format)):
            names = [name for name in video_encoders(ENCODERS) if name in supported] or [self._kind.codec]
            raise UsageError(f"{suffix} cannot hold {codec.name}; it takes {', '.join(names)}")
        stream: Any = output.add_stream(codec.name, rate=stored_rate(source))
        context = stream.codec_context
        self._stored = StoredPictures.of(source, settings, self._kind, codec, encoder, suffix)
        self.warnings += self._stored.warnings
        context.pix_fmt = self._stored.pixels
        context.width, context.height = stored_size(source.width, source.height, context.pix_fmt, encoder)
        check_width(codec.name, context.width, self._kind.codec)
        self._padding = context.width - source.width, context.height - source.height
        if any(self._padding):
            self.warnings.append(f"{codec.name} needs even sizes: the last row or column is repeated, "
                                 f"{context.width}x{context.height}")
        if encoder.threads:
            context.thread_count = encoder.threads
        if source.pixel_aspect != 1:
            context.sample_aspect_ratio = source.pixel_aspect
        if self._kind.tick is not None:
            context.max_b_frames = 0  # they need times of their own to be shown in order
        self._set_times(context, settings)
        if not output_flags(self._kind) & NEEDS_GLOBAL_HEADER:
            context.flags &= ~GLOBAL_HEADER
        if codec.canonical_name == "hevc" and output.format.name in MP4_FORMATS:
            context.codec_tag = "hvc1"  # Apple's players refuse FFmpeg's default, hev1
        context.options = self._options(context, encoder, settings)
        self._stored.tag(context)
        self._start_encoder(context, codec.name, settings)
        return stream

    def _set_times(self, context: Any, settings: RenderSettings) -> None:
        kind, source = self._kind, self._source
        clock_tick = new_clock(kind, source, settings).tick
        self.tick = kind.tick or clock_tick
        self._thinning: Thinning | None = None
        if kind.shortest:
            too_fast = source.rate * kind.shortest > 1
            self._thinning = Thinning(clock_tick, self.tick, kind.shortest, too_fast)
            if too_fast:
                self.warnings.append(f"{Path(self._name).suffix} shows {float(1 / kind.shortest):g} pictures a second: "
                                     f"some of the {float(source.rate):g} are left out, evenly; the length stays")
        context.time_base = self.tick
        context.flags |= FRAME_DURATION

    def _options(self, context: Any, encoder: Encoder, settings: RenderSettings) -> dict[str, str]:
        options = encoder_options(context, encoder, settings, self.warnings)
        metadata = None if self._stored.tone_map else self._source.hdr_metadata
        if metadata and context.name == "libx265":
            join_option(options, "x265-params", metadata.x265_params())
        elif metadata and context.name == "libsvtav1":
            join_option(options, "svtav1-params", metadata.svtav1_params())
        elif metadata:
            self.warnings.append(f"{context.name} does not store the mastering display and the light level of HDR: "
                                 "left out; libx265 and libsvtav1 do")
        if context.name in X264_ENCODERS and self._source.constant_rate:
            join_option(options, "x264-params", "force-cfr=1")  # else it states its time base as the rate
        return options

    def _start_encoder(self, context: Any, name: str, settings: RenderSettings) -> None:
        from av import FFmpegError
        from av.error import ArgumentError, ExternalError, OptionNotFoundError

        if name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it would fill the screen
        given = f", -e {settings.encoder_options}" if settings.encoder_options else ""
        try:
            with process_tuning.preserve_scheduling(), refused_parameters(bool(given)) as refused:
                context.open()
        except (ArgumentError, ExternalError, OptionNotFoundError, ValueError):
            what = f"{context.width}x{context.height} {self._stored.pixels}, {context.framerate} fps"
            raise UsageError(f"{name} refuses this: {what}, --crf {settings.crf}, "
                             f"--encoder-preset {settings.encoder_preset}{given}") from None
        except FFmpegError as error:
            if given and error.errno == errno.ERANGE:
                raise UsageError(f"{name} refuses{given.removeprefix(',')} (a value is out of range)") from None
            raise SinkError(f"{name} cannot run here ({error_text(error)}); -c:v {self._kind.codec} can") from None
        if refused:
            raise UsageError(f"{name} refuses -e {settings.encoder_options} ({refused[0]})")

    def add(self, picture: Any, pts: int) -> list[Any]:
        """Encode the picture before, whose duration is known now; return the packets that are ready."""
        if self._thinning:
            thinned = self._thinning(pts)
            if thinned is None:
                return []
            pts = thinned
        packets = self._encode_pending(pts)
        self._pending = self._pad(picture), pts
        return packets

    def finish(self, end_pts: int) -> list[Any]:
        """Encode the last picture, which ends at ``end_pts``; return all remaining packets."""
        packets = self._encode_pending(self._thinning.end(end_pts) if self._thinning else end_pts)
        return packets + self._with_durations(self.stream.encode(None))

    def _pad(self, picture: Any) -> Any:
        """Repeat the last row or column up to the stored size."""
        right, below = self._padding
        return planes.pad_edges(planes.to_planar(picture), right, below) if right or below else picture

    def _encode_pending(self, end_pts: int) -> list[Any]:
        if self._pending is None:
            return []
        (picture, pts), self._pending = self._pending, None
        picture = self._convert(picture)
        picture.pts, picture.time_base, picture.duration = pts, self.tick, end_pts - pts
        self._durations[pts] = end_pts - pts
        return self._with_durations(self.stream.encode(picture))

    def _with_durations(self, packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)  # not all encoders set it
            if packet.dts is not None and not 0 <= (packet.pts - packet.dts) * self.tick <= MAX_REORDER_SECONDS:
                packet.dts = packet.pts  # libx265 leaves it undefined in a video of two pictures
        return packets


def to_video_frame(picture: Picture) -> Any:
    """An image [H, W, 3] RGB, which is copied, or a PyAV frame -> a PyAV frame, which ``VideoEncoder.add`` takes."""
    from av import VideoFrame

    if isinstance(picture, VideoFrame):
        return picture
    image: NDArray[np.uint8] = picture
    return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")


@contextlib.contextmanager
def refused_parameters(listen: bool) -> Iterator[list[str]]:
    """The list holds a line for each parameter that an encoder which is opened meanwhile does not know."""
    import av.logging

    refused: list[str] = []
    if not listen:
        yield refused
        return
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as lines:
            yield refused
    finally:
        av.logging.set_level(level)
    refused += [" ".join(text.split()).rstrip(".") for _, _, text in lines if REFUSALS.search(text)]


def output_flags(kind: Container) -> int:
    from av import ContainerFormat

    return int(ContainerFormat(kind.format, "w").flags)
