"""Read the pictures of a container: packets -> decoded pictures -> whole ones where they are interlaced."""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from streamdream.errors import SourceError, error_text
from streamdream.media.conform import PictureForm
from streamdream.media.container_description import cropping_of, fetch_only, program_of
from streamdream.media.decoder import VideoDecoder
from streamdream.media.deinterlace import Deinterlacer
from streamdream.media.hardware_decoding import HardwareDecoding
from streamdream.media.input_container import Rotation, color_of, main_video_stream
from streamdream.media.picture_filter import PictureFilter
from streamdream.media.pyav import demux, fraction
from streamdream.media.timestamps import SoundSpans

_decoder_threads = 0
RAW_FORMATS = {"mpeg", "mpegts", "mpegvideo", "h264", "hevc"}
"""Formats that say nothing of the pixel aspect: it is that of the pictures."""


def set_decoder_threads(number: int) -> None:
    """Let each decoder that is opened from now on have so many threads; 0 is FFmpeg's default, as many as cores."""
    global _decoder_threads
    _decoder_threads = number


class ReadPicture(NamedTuple):
    """A decoded picture, whole, as it is stored: its form, and whether that differs from the one before it."""

    picture: Any
    form: PictureForm
    is_new_form: bool
    is_first: bool
    """Whether decoding began with it."""


class PictureReader:
    """The main video stream of the container that ``open`` returns, which is called again by ``reopen``.

    Raises SourceError when there is no video in it, or a kind of pictures that no filter takes, and HardwareError where
    the device of ``hardware`` fails. Damage is counted.
    """

    def __init__(self, open: Callable[..., Any], name: str, deinterlace: str, hardware: HardwareDecoding,
                 is_seekable: bool = True) -> None:
        self.open, self.name, self._deinterlace = open, name, deinterlace
        self.hardware, self._is_seekable = hardware, is_seekable
        self._codec_aspect: Fraction | None = None
        """That of the decoder at the first picture."""
        self._open_container()
        self._crop = make_cropper(cropping_of(self.container, self.stream))
        self.start()

    def _open_container(self) -> None:
        from av.stream import Discard

        self.container = self.hardware.open(self.open, main_video_stream, self._is_seekable)
        try:
            self.decoder = VideoDecoder(self.container, self.name, self.hardware)
        except SourceError:
            self.container.close()
            raise
        self.stream = self.decoder.stream
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = _decoder_threads
        self.time_base = self.decoder.time_base
        members = program_of(self.container, self.stream)
        alone = fetch_only(self.container, self.stream)
        self._sounds = [] if alone else [sound for sound in self.container.streams.audio if sound.index in members]
        for stream in self.container.streams:
            if stream is not self.stream and stream not in self._sounds:
                stream.discard = Discard.all

    def reopen(self) -> None:
        color, pixel_aspect = self.decoder.color, self.decoder.pixel_aspect
        self.container.close()
        self._open_container()
        self.decoder.color, self.decoder.pixel_aspect = color, pixel_aspect

    def seek(self, ticks: int) -> bool:
        """Go to a key frame at or before that time of the stream; return whether the container can."""
        from av import FFmpegError

        try:
            self.container.seek(ticks, stream=self.stream)
            self.decoder.flush()
        except FFmpegError:
            return False
        return True

    def start(self) -> None:
        """Begin to decode where the container is now."""
        self.broken = ""
        """Why reading ended before the end."""
        self.last_dts: float = -math.inf
        self.decoder.damaged = 0
        self.sound = SoundSpans()
        self._rotation = Rotation()
        """Of the last picture."""
        self.deinterlacer = Deinterlacer(self._deinterlace)
        self._ahead: deque[ReadPicture] = deque()
        self._pictures = self._decode()

    def next(self) -> ReadPicture | None:
        """None at the end."""
        return self._ahead.popleft() if self._ahead else next(self._pictures, None)

    def peek(self) -> ReadPicture | None:
        """What ``next`` will return."""
        if not self._ahead and (following := next(self._pictures, None)):
            self._ahead.append(following)
        return self._ahead[0] if self._ahead else None

    def close(self) -> None:
        self._pictures = iter(())
        self._ahead.clear()
        self.container.close()

    def _decode(self) -> Iterator[ReadPicture]:
        forms: deque[PictureForm] = deque()
        before: PictureForm | None = None
        for packet in self._demux():
            pictures = self.decoder.decode(packet)
            forms.extend(map(self._form_of, pictures))
            for decoded in [*pictures, None] if packet is None else pictures:
                for whole in self._filter(decoded):
                    form = replace(forms.popleft(), width=whole.width, height=whole.height)
                    yield ReadPicture(whole, form, before is not None and before.shape != form.shape, before is None)
                    before = form

    def _filter(self, decoded: Any) -> list[Any]:
        """The pictures that are whole and cropped with this one, or with the end, None. Raises SourceError."""
        from av import FFmpegError

        try:
            pictures = self.deinterlacer(decoded)
            return [self._crop(picture) for picture in pictures] if self._crop else pictures
        except FFmpegError as error:
            raise SourceError(f"{self.name} has pictures that cannot be read ({error_text(error)})") from None

    def _demux(self) -> Iterator[Any]:
        """All packets from the current position on, then None, which flushes the decoder."""
        from av import FFmpegError

        try:
            for packet in demux(self.container, self.stream, *self._sounds):
                if packet.stream is not self.stream:
                    if packet.pts is not None:
                        self.sound.add(float(packet.pts * fraction(packet.time_base, Fraction(1, 1000))))
                    continue
                if packet.dts is not None:
                    self.last_dts = packet.dts
                if packet.size:
                    yield packet
        except FFmpegError as error:
            self.broken = error_text(error)
        yield None

    def _form_of(self, picture: Any) -> PictureForm:
        aspect = fraction(self.stream.codec_context.sample_aspect_ratio, Fraction(1))
        if self._codec_aspect is None:
            self._codec_aspect = aspect
        is_own = RAW_FORMATS & set(self.container.format.name.split(","))
        if aspect == self._codec_aspect and not is_own:  # the container's is preferred while nothing changes
            aspect = fraction(self.stream.sample_aspect_ratio, Fraction(1))
        rotation = Rotation.of(picture)
        if rotation == Rotation() and not picture.key_frame:  # H.264 and HEVC say it once for all up to the next one
            rotation = self._rotation
        self._rotation, color = rotation, color_of(picture)
        return PictureForm(picture.width, picture.height, rotation, aspect, picture.format.name, color.colorspace,
                           color.range)


def make_cropper(cropping: tuple[int, int, int, int] | None) -> PictureFilter | None:
    """For what ``cropping_of`` tells."""
    if cropping is None:
        return None
    left, right, top, bottom = cropping
    return PictureFilter([("crop", f"w=iw-{left + right}:h=ih-{top + bottom}:x={left}:y={top}"), ("copy", "")])
