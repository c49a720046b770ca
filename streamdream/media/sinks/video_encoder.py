"""Encode the pictures of one video stream: RGB in, packets with exact times and durations out."""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, UsageError, error_text
from streamdream.media import planes
from streamdream.media.frame import Picture, picture_size
from streamdream.media.input_container import ColorTags, is_yuv
from streamdream.media.sinks.encoders import (
    ENCODERS,
    Container,
    Encoder,
    find_codec,
    pixel_format,
    set_quality,
    stored_color,
    stored_size,
    stored_tick,
    video_encoders,
)
from streamdream.settings import RenderSettings
from streamdream.system import process_tuning

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

FRAME_DURATION, GLOBAL_HEADER = 1 << 8, 1 << 22
"""FFmpeg's AV_CODEC_FLAG_*: frames have durations; the stream's header is kept outside of its packets."""
NEEDS_GLOBAL_HEADER = 1 << 6
"""FFmpeg's AVFMT_GLOBALHEADER."""
MAX_RATE = 1000
MAX_FRACTION_TERM = 65535
"""Of the rate as a fraction; the limit of MPEG-4."""


@dataclass
class PictureClock:
    """The times of pictures in ticks: rounded, and strictly increasing."""

    tick: Fraction
    """In seconds."""
    starts_at_zero: bool
    """Move the first picture to 0: such a container would move all later pictures to close the gap."""
    previous: int | None = None
    last_gap: int = 0
    max_shift: Fraction = Fraction(0)
    """Largest distance of a time from its picture's true time, in seconds."""

    def __call__(self, seconds: Fraction) -> int:
        pts = round(seconds / self.tick)
        if self.previous is not None:
            pts = max(pts, self.previous + 1)
            self.last_gap = pts - self.previous
        elif self.starts_at_zero:
            pts = 0
        self.max_shift = max(self.max_shift, abs(pts * self.tick - seconds))
        self.previous = pts
        return pts

    def end(self, source: Source) -> int:
        """When the last picture ends. A live source does not say it; its rate is nominal, and pictures may arrive
        faster.
        """
        assert self.previous is not None
        if source.last_duration:
            duration = round(source.last_duration / self.tick)
        else:
            nominal = round(1 / source.rate / self.tick)
            duration = min(nominal, self.last_gap) if self.last_gap else nominal
        return self.previous + max(duration, 1)


def check_size(picture: Picture, source: Source, name: str) -> None:
    """Raise ValueError where a picture for the output ``name`` has not the size of its source."""
    height, width = picture_size(picture)
    if (width, height) != (source.width, source.height):
        raise ValueError(f"{name} takes pictures of {source.width}x{source.height}, not {width}x{height}")


def new_clock(kind: Container, source: Source, settings: RenderSettings) -> PictureClock:
    """The clock of a video of that source in that container. Raises UnknownName or UsageError for a wrong codec."""
    encoder = ENCODERS.get(find_codec(settings.codec, kind).name, Encoder())
    return PictureClock(stored_tick(source.time_base, stored_rate(source), kind, encoder), kind.tick is not None)


def stored_rate(source: Source) -> Fraction:
    """Frames per second, as a fraction that every container can hold."""
    rate = min(source.rate, Fraction(MAX_RATE))
    return rate.limit_denominator(max(int(MAX_FRACTION_TERM / rate), 1))


class VideoEncoder:
    """One encoder in ``output``, an av container that is not yet started.

    ``kind`` is the container of the result, which decides codec, time base and colours; ``output`` may be another one
    that holds the packets until then. Raises UsageError or UnknownName for settings that do not work, SinkError for an
    encoder that cannot run here.
    """

    def __init__(self, output: Any, kind: Container, name: str, source: Source, settings: RenderSettings) -> None:
        self.warnings: list[str] = []
        self._kind, self._name, self._source = kind, name, source
        self._pending: Any = None
        self._durations: dict[int, int] = {}
        codec = find_codec(settings.codec, kind)
        self.stream = self._add_stream(output, codec, ENCODERS.get(codec.name, Encoder()), settings)
        self._convert = to_palette(source) if self._pixels == "pal8" else to_pixels(self._pixels, self._color)

    def _add_stream(self, output: Any, codec: Any, encoder: Encoder, settings: RenderSettings) -> Any:
        source = self._source
        if codec.name not in supported_codecs(self._kind):
            supported = [name for name in video_encoders(ENCODERS) if name in supported_codecs(self._kind)]
            raise UsageError(f"{Path(self._name).suffix} cannot hold {codec.name}; it takes "
                             f"{', '.join(supported or [self._kind.codec])}")
        stream: Any = output.add_stream(codec.name, rate=stored_rate(source))
        context = stream.codec_context
        self._pixels = context.pix_fmt = pixel_format(codec)
        context.width, context.height = stored_size(source.width, source.height, self._pixels, encoder)
        self._padding = context.width - source.width, context.height - source.height
        if any(self._padding):
            self.warnings.append(f"{codec.name} needs even sizes: the last row or column is repeated, "
                                 f"{context.width}x{context.height}")
        if source.pixel_aspect != 1:
            context.sample_aspect_ratio = source.pixel_aspect
        if self._kind.tick is not None:
            context.max_b_frames = 0  # they need times of their own to be shown in order
        self.tick = new_clock(self._kind, source, settings).tick
        context.time_base = self.tick
        context.flags |= FRAME_DURATION
        if not output_flags(self._kind) & NEEDS_GLOBAL_HEADER:
            context.flags &= ~GLOBAL_HEADER
        context.options = set_quality(context, encoder, settings, self.warnings)
        self._color = stored_color(source.color, source.height, self._kind, encoder)
        self._set_color(context)
        self._start_encoder(context, codec.name, settings)
        return stream

    def _set_color(self, context: Any) -> None:
        color, yuv = self._color, is_yuv(context.format)
        context.colorspace = color.colorspace if yuv else 0
        context.color_range = color.range if yuv else 2
        context.color_primaries, context.color_trc = color.primaries, color.trc

    def _start_encoder(self, context: Any, name: str, settings: RenderSettings) -> None:
        from av import FFmpegError
        from av.error import ArgumentError, ExternalError

        if name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it would fill the screen
        try:
            with process_tuning.preserve_scheduling():
                context.open()
        except (ArgumentError, ExternalError, ValueError):
            what = f"{context.width}x{context.height} {self._pixels}, {context.framerate} fps"
            raise UsageError(f"{name} refuses this: {what}, --crf {settings.crf}, "
                             f"--encoder-preset {settings.encoder_preset}") from None
        except FFmpegError as error:
            raise SinkError(f"{name} cannot run here ({error_text(error)}); -c:v {self._kind.codec} can") from None

    def add(self, picture: Any, pts: int) -> list[Any]:
        """Encode the picture before, whose duration is known now; return the packets that are ready."""
        packets = self._encode_pending(pts)
        self._pending = self._pad(picture)
        self._pending.pts = pts
        return packets

    def finish(self, end_pts: int) -> list[Any]:
        """Encode the last picture, which ends at ``end_pts``; return all remaining packets."""
        packets = self._encode_pending(end_pts)
        return packets + self._with_durations(self.stream.encode(None))

    def _pad(self, picture: Any) -> Any:
        """Repeat the last row or column up to the stored size."""
        from av.video.reformatter import VideoReformatter

        right, below = self._padding
        if not right and not below:
            return picture
        return planes.pad_edges(planes.to_planar(picture, VideoReformatter().reformat), right, below)

    def _encode_pending(self, end_pts: int) -> list[Any]:
        if self._pending is None:
            return []
        pts, picture = self._pending.pts, self._convert(self._pending)
        self._pending = None
        picture.pts, picture.time_base, picture.duration = pts, self.tick, end_pts - pts
        self._durations[pts] = end_pts - pts
        return self._with_durations(self.stream.encode(picture))

    def _with_durations(self, packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)  # not all encoders set it
        return packets


def to_video_frame(picture: Picture) -> Any:
    """An image [H, W, 3] RGB, which is copied, or a PyAV frame -> a PyAV frame, which ``VideoEncoder.add`` takes."""
    from av import VideoFrame

    if isinstance(picture, VideoFrame):
        return picture
    image: NDArray[np.uint8] = picture
    return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")


def output_flags(kind: Container) -> int:
    from av import ContainerFormat

    return int(ContainerFormat(kind.format, "w").flags)


def supported_codecs(kind: Container) -> set[str]:
    """Names of the encoders whose streams the container can hold."""
    import io

    from streamdream.media.pyav import open_av

    with open_av(io.BytesIO(), "w", format=kind.format) as container:
        return set(container.supported_codecs)


def to_pixels(pixels: str, color: ColorTags) -> Callable[[Any], Any]:
    """A converter from RGB pictures to the pixel format ``pixels`` and the colours ``color``."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def convert(picture: Any) -> Any:
        if not is_yuv(picture.format):
            picture.colorspace, picture.color_range = color.colorspace, color.range  # the result inherits them
            return reformatter.reformat(picture, format=pixels, threads=1)
        return reformatter.reformat(picture, format=pixels, dst_colorspace=color.colorspace,
                                    dst_color_range=color.range, threads=1)

    return convert


def to_palette(source: Source) -> Callable[[Any], Any]:
    """A converter from RGB pictures to 256 colours, chosen for each picture."""
    from av import VideoFormat
    from av.filter import Graph

    graph: Any = Graph()
    entry = graph.add_buffer(width=source.width, height=source.height, format=VideoFormat("rgb24"),
                             time_base=source.time_base)
    split, end = graph.add("split"), graph.add("buffersink")
    choose = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3")
    split.link_to(use, 0, 0)
    split.link_to(choose, 1, 0)
    choose.link_to(use, 0, 1)
    entry.link_to(split)
    use.link_to(end)
    graph.configure()

    def convert(picture: Any) -> Any:
        graph.push(picture)
        return graph.pull()

    return convert
