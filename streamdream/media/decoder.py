"""Decode the video stream of an open container to upright RGB pictures; files and network streams share it."""
from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError
from streamdream.media import hardware_decoding, planes
from streamdream.media.hardware_decoding import HardwareDecoder, HardwareDecoding
from streamdream.media.input_container import ColorTags, Rotation, color_of, main_video_stream, tag_colorspace
from streamdream.media.picture_limits import MAX_VIDEO_PIXELS, check_pixels, max_pixels
from streamdream.media.pyav import fraction
from streamdream.media.tone_mapping import is_hdr_picture, tone_mapped_rgb

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codec -> the decoder that reads the transparency of WebM, which FFmpeg's own ones do not."""


class VideoDecoder:
    """The main video stream of ``container``. Raises SourceError when there is none that can be decoded.

    ``hardware`` has opened the container, where a device decodes. ``describe`` takes the colours and the pixel aspect
    from the first picture; they hold for all pictures.
    """

    def __init__(self, container: Any, name: str, hardware: HardwareDecoding | None = None) -> None:
        from av.video.reformatter import VideoReformatter

        self.stream: Any = main_video_stream(container)
        if self.stream is None or self.stream.codec_context is None:
            only_sound = self.stream is None and container.streams.audio
            raise SourceError(f"{name} holds no video" + (", only sound" if only_sound else " that can be decoded"))
        context = self.stream.codec_context
        limit = min(max_pixels(container.size or 0), int(context.options.get("max_pixels", MAX_VIDEO_PIXELS)))
        check_pixels(name, context.width, context.height, limit)
        context.options = {**context.options, "max_pixels": str(limit)}  # for a size that changes on the way
        self.time_base = fraction(self.stream.time_base, Fraction(1, 1000))
        self.color = ColorTags()
        self.pixel_aspect = Fraction(1)
        """Of the upright picture: width of a pixel by its height."""
        self.damaged = 0
        """Packets that could not be decoded."""
        self._name = name
        self._rgb, self._planar = VideoReformatter(), VideoReformatter()
        self._alpha_decoder = _alpha_decoder(self.stream)
        if hardware and self._alpha_decoder is not None:
            hardware.fail("transparency is decoded in software only")
        self._hardware = _hardware_decoder(self.stream, hardware) if hardware and hardware.device_type else None

    def decode(self, packet: Any) -> list[Any]:
        """The pictures that a packet completes, or ``None`` at the end of the stream; damage is counted, not raised.

        Raises HardwareError where a device fails: then software decodes from here on.
        """
        from av import FFmpegError

        try:
            pictures: list[Any] = (self._hardware or self._alpha_decoder or self.stream).decode(packet)
        except FFmpegError:
            self.damaged += 1
            return []
        return pictures

    def flush(self) -> None:
        """Forget what was decoded; after a seek. PyAV does so for the decoders of its streams."""
        if self._alpha_decoder is not None:
            self._alpha_decoder.flush_buffers()
        if self._hardware is not None:
            self._hardware.flush()

    def describe(self, picture: Any, rotation: Rotation | None = None) -> Rotation:
        """Take what the first picture says about all of them; return how it is turned, which may be known already."""
        rotation = rotation or Rotation.of(picture)
        aspect = fraction(self.stream.sample_aspect_ratio, Fraction(1))
        self.pixel_aspect = 1 / aspect if rotation.transpose else aspect
        self.color = color_of(picture)
        return rotation

    def to_rgb(self, picture: Any, rotation: Rotation, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """[H, W, 3], upright, HDR tone-mapped. ``size`` (width, height before the rotation) None is the picture's.

        Raises SourceError for a pixel format that cannot be converted.
        """
        from av import FFmpegError

        tag_colorspace(picture, self.color)
        width, height = size or (picture.width, picture.height)
        kind = "AREA" if height < picture.height else "BILINEAR"
        try:  # one thread: others decode and dream meanwhile, and it is half a millisecond at 720p
            if is_hdr_picture(picture):
                return rotation(tone_mapped_rgb(picture, width, height))
            image: Any = self._rgb.reformat(picture, width, height, "rgb24", interpolation=kind, threads=1).to_ndarray()
            return rotation(image)
        except (FFmpegError, ValueError):
            raise self._unreadable(picture) from None

    def to_planar(self, picture: Any, rotation: Rotation, size: tuple[int, int], pixel_format: str = "") -> Any:
        """The same picture in its own samples, upright: a planar PyAV frame (see ``planes.py``).

        ``size`` is (width, height before the rotation); ``pixel_format`` "" is that of the picture. Raises SourceError.
        """
        from av import FFmpegError

        tag_colorspace(picture, self.color)
        try:
            picture = planes.to_planar(picture, self._planar.reformat)
            if (picture.width, picture.height) != size:
                picture = self._planar.reformat(picture, *size, threads=1)
            picture = planes.make_upright(picture, rotation, self._planar.reformat)
            return self._planar.reformat(picture, format=pixel_format, threads=1) if pixel_format else picture
        except (FFmpegError, ValueError):
            raise self._unreadable(picture) from None

    def _unreadable(self, picture: Any) -> SourceError:
        return SourceError(f"{self._name} has pictures that cannot be read, {picture.format.name}")


def _alpha_decoder(stream: Any) -> Any:
    """The decoder of a WebM with transparency, which is a second picture in each packet; None for any other video."""
    from av import CodecContext
    from av.codec import codecs_available

    name = ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name, "")
    is_transparent = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    if not is_transparent or name not in codecs_available:
        return None
    decoder: Any = CodecContext.create(name, "r")
    decoder.options = dict(stream.codec_context.options)  # the limit of the size
    return decoder


def _hardware_decoder(stream: Any, hardware: HardwareDecoding) -> HardwareDecoder | None:
    """Beside it decodes software, until the first picture of both was compared."""
    from av import CodecContext

    context = hardware_decoding.decoding_context(stream)
    if context is None:
        hardware.fail(f"this PyAV does not decode {stream.codec_context.name} with {hardware.device_type}")
        return None
    context.thread_count = 1  # the device decodes; threads would only hold more of its pictures
    software: Any = CodecContext.create(context.codec, "r")
    software.extradata, software.options = context.extradata, dict(context.options)
    for tag in ("colorspace", "color_range", "color_primaries", "color_trc"):  # which the container may state alone
        setattr(software, tag, getattr(context, tag))
    return HardwareDecoder(context, software)
