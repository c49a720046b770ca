"""Write a video file, with sound, subtitles and metadata copied from its input."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, UsageError, error_text
from streamdream.media.container import ColorTags, TimeRange, is_yuv
from streamdream.media.frame import Frame
from streamdream.media.pyav import open_av
from streamdream.media.sinks.encoders import (
    CONTAINERS,
    ENCODERS,
    Encoder,
    find_codec,
    pixel_format,
    set_quality,
    stored_color,
    stored_size,
    stored_tick,
    video_encoders,
)
from streamdream.media.sinks.recording import Recording
from streamdream.media.sinks.stream_copy import StreamCopier
from streamdream.settings import RenderSettings
from streamdream.system import process_tuning
from streamdream.system.atomic_file import AtomicFile

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

FRAME_DURATION = 1 << 8
"""FFmpeg's AV_CODEC_FLAG_FRAME_DURATION: frames have durations."""
MAX_RATE = 1000
MAX_FRACTION_TERM = 65535
"""Of the rate as a fraction; the limit of MPEG-4."""
BUFFER_BYTES = 1 << 20
"""Write buffer of a recording."""


class VideoWriter:
    """Encode pictures and interleave them with packets copied from ``input_path``. With ``recording`` the unfinished
    file plays, and it is kept after any error.

    Raises SinkError when the folder cannot be written, UsageError or UnknownName for settings that do not work.
    """

    def __init__(self, path: str, source: Source, settings: RenderSettings, input_path: str | None,
                 overwrite: bool = False, recording: bool = False) -> None:
        self.warnings: list[str] = []
        self._source = source
        self._pending: Any = None
        self._max_shift = Fraction(0)
        self._durations: dict[int, int] = {}
        self._copier: StreamCopier | None = None
        self._container: Any = None
        self._last_gap = 0
        self.partial = Recording(path, overwrite) if recording else AtomicFile(path, overwrite=overwrite)
        try:
            self._open(settings, input_path)
        except Exception as error:
            self.discard()
            self.partial.raise_error(error)

    def _open(self, settings: RenderSettings, input_path: str | None) -> None:
        source = self._source
        self._kind = CONTAINERS[self.partial.target.suffix.lower()]
        codec = find_codec(settings.codec, self._kind)
        encoder = ENCODERS.get(codec.name, Encoder())
        if isinstance(self.partial, Recording):
            self._container = open_av(self.partial.file, "w", format=self._kind.format, buffer_size=BUFFER_BYTES,
                                      container_options=self._kind.options | self._kind.recording_options)
        else:
            self._container = open_av(str(self.partial.path), "w", format=self._kind.format,
                                      container_options=self._kind.options)
        self._stream = self._add_stream(codec, encoder, settings)
        if input_path and "://" in input_path:
            self.warnings.append(f"only pictures come from {input_path}: sound is copied from files")
        elif input_path and Path(input_path).is_file():
            span = TimeRange.of(settings.start, settings.duration, settings.end)
            self._copier = StreamCopier(input_path, self._container, self._stream, span, self.warnings)
        self._convert = to_palette(source) if self._pixels == "pal8" else to_pixels(self._pixels, self._color)
        self._container.start_encoding()

    def _add_stream(self, codec: Any, encoder: Encoder, settings: RenderSettings) -> Any:
        source = self._source
        rate = min(source.rate, Fraction(MAX_RATE))
        rate = rate.limit_denominator(max(int(MAX_FRACTION_TERM / rate), 1))
        try:
            stream: Any = self._container.add_stream(codec.name, rate=rate)
        except ValueError:
            supported = [name for name in video_encoders(ENCODERS) if name in self._container.supported_codecs]
            raise UsageError(f"{self.partial.target.suffix} cannot hold {codec.name}; it takes "
                             f"{', '.join(supported or [self._kind.codec])}") from None
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
        self._tick = stored_tick(source.time_base, rate, self._kind, encoder)
        context.time_base = self._tick
        context.flags |= FRAME_DURATION
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

    @property
    def bytes_written(self) -> int:
        return self.partial.size

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> tuple[Any, Fraction]:
        """A PyAV frame and its time in seconds."""
        from av import VideoFrame

        right, below = self._padding
        if image.shape != (self._source.height, self._source.width, 3):
            raise ValueError(f"{self.partial.name} takes pictures of {self._source.width}x{self._source.height}, "
                             f"not {list(image.shape)}")
        if right or below:
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"), frame.pts * Fraction(*frame.time_base)

    def write(self, item: tuple[Any, Fraction]) -> None:
        """Encode the picture before: its duration is known only now."""
        picture, seconds = item
        picture.pts = round(seconds / self._tick)
        if self._pending is not None:
            picture.pts = max(picture.pts, self._pending.pts + 1)
            self._last_gap = picture.pts - self._pending.pts
            self._encode(self._pending, self._last_gap)
        elif self._kind.tick is not None:
            picture.pts = 0  # else all later pictures would be moved to close the gap
        self._max_shift = max(self._max_shift, abs(picture.pts * self._tick - seconds))
        self._pending = picture

    def complete(self) -> None:
        end = self._pending.pts + max(self._last_duration(), 1)
        self._encode(self._pending, end - self._pending.pts)
        packets = self._stream.encode(None)
        if packets and self._kind.format in ("mp4", "mov"):
            # These muxers take the length of the video from the last packet, which need not be the last picture.
            self._durations[packets[-1].pts] = end - packets[-1].pts
        self._mux(packets)
        if self._max_shift > self._tick:
            self.warnings.append(f"{self.partial.name} cannot hold the times of all frames: some were moved by up to "
                                 f"{float(self._max_shift):.2f} s; .mkv and .mp4 keep them")
        if self._copier:
            self._copier.copy_until(float("inf"))
            self._copier.close()
        self._container.close()

    def _last_duration(self) -> int:
        """In ticks. A live source does not have it; its rate is nominal, and pictures may arrive faster."""
        if self._source.last_duration:
            return round(self._source.last_duration / self._tick)
        nominal = round(1 / self._source.rate / self._tick)
        return min(nominal, self._last_gap) if self._last_gap else nominal

    def _encode(self, picture: Any, duration: int) -> None:
        pts = picture.pts
        picture = self._convert(picture)
        picture.pts, picture.time_base, picture.duration = pts, self._tick, duration
        self._durations[pts] = duration
        self._mux(self._stream.encode(picture))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)  # not all encoders set it
            if self._copier:
                self._copier.copy_until(float((packet.dts or 0) * self._tick))
            self._container.mux_one(packet)
            if isinstance(self.partial, Recording):
                self.partial.file.mark_whole()

    def commit(self) -> None:
        self.partial.commit()

    def discard(self) -> None:
        if isinstance(self.partial, Recording):
            self._close()
            self.partial.discard()
        else:  # first, so that closing does not write the index
            self.partial.discard()
            self._close()

    def keep(self) -> None:
        if isinstance(self.partial, Recording):
            self._close()
            self.partial.keep()
        else:
            self.discard()

    @property
    def kept(self) -> str:
        return self.partial.describe() if isinstance(self.partial, Recording) else ""

    def _close(self) -> None:
        from av import FFmpegError

        if self._copier:
            self._copier.close()
        if self._container:
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                self._container.close()


def to_pixels(pixels: str, color: ColorTags) -> Callable[[Any], Any]:
    """A converter from RGB pictures to the pixel format ``pixels`` and the colours ``color``."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def convert(picture: Any) -> Any:
        picture.colorspace, picture.color_range = color.colorspace, color.range  # the result inherits them
        return reformatter.reformat(picture, format=pixels, threads=1)

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
