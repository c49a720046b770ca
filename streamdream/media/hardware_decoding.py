"""Decode the pictures of a video on a GPU, where that gives the same pictures as decoding in software.

The device decodes, and each picture is copied to the memory of the processor, as the software decoder would have given
it. H.264, HEVC and VP9 define their pictures bit for bit, but FFmpeg's hardware path knows no film grain and no
cropping at the left and at the top, and drivers have faults. So the first picture is decoded by both and compared.
After an error of the device the source is read on in software, from the picture after the last one that was delivered.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from streamdream.errors import SourceError, UsageError, error_text
from streamdream.media import planes
from streamdream.media.pyav import side_data_kinds
from streamdream.system.machine import usable_cores

HWACCELS = {
    "auto": "the GPU of --device, for files of at least 1080p where the processor has few cores",
    "none": "in software",
    "cuda": "NVIDIA's NVDEC",
    "videotoolbox": "Apple's",
    "d3d11va": "any GPU on Windows",
    "vaapi": "Intel's and AMD's on Linux, where PyAV is built with it",
    "vulkan": "Vulkan Video, where PyAV is built with it",
}
"""FFmpeg's names of the types of devices, and what they are."""
SOFTWARE = "software"
OF_DEVICE = {"cuda": ("cuda",), "mps": ("videotoolbox",), "auto": ("cuda", "videotoolbox")}
"""PyTorch's type of a device -> what ``auto`` tries."""
EXACT_CODECS = ("h264", "hevc", "vp9")
"""Those whose standard defines each sample. MPEG-2 and MPEG-4 leave the rounding of their transform open; for AV1 PyAV
takes libdav1d, which knows no devices."""
FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
"""What software decodes into -> the same samples as they come from a device."""
MIN_PIXELS = 1920 * 800
"""Of a picture that ``auto`` decodes on a GPU: a film of 1080p without its bars."""
MAX_CORES = 4
"""With more, software decodes faster. H.264 of 1080p on an H200 and 16 cores: 209 frames a second by NVDEC, 368 by
software, for 5 and 23 ms of the processor (docs/notebook/2026-11-28-decode-on-a-gpu.md)."""
MAX_UNCHECKED = 32
"""Pictures that one of both decoders may be ahead before their first ones are compared."""
log = logging.getLogger(__name__)


class HardwareError(SourceError):
    """The device cannot decode on; software can."""


@dataclass(frozen=True)
class Hwaccel:
    """What the user wants: one of ``HWACCELS``, and PyTorch's name of the device that dreams."""

    name: str = "none"
    device: str = "cpu"

    @property
    def is_named(self) -> bool:
        return self.name not in ("auto", "none")

    @property
    def device_types(self) -> tuple[str, ...]:
        """FFmpeg's names of those to try."""
        return (self.name,) if self.is_named else OF_DEVICE.get(self.device.partition(":")[0], ())

    @property
    def number(self) -> str | None:
        """Of the GPU; None is the default one."""
        kind, _, number = self.device.partition(":")
        return number or None if kind == "cuda" else None


IN_SOFTWARE = Hwaccel()


class HardwareDecoding:
    """Whether a device decodes one source, which may be opened anew.

    Raises UsageError for a type of device that is named and cannot run here.
    """

    def __init__(self, wanted: Hwaccel = IN_SOFTWARE) -> None:
        self._wanted = wanted
        self.device_type = ""
        """FFmpeg's name; empty while nothing is decoded on a device."""
        self.reason = ""
        """Why not."""
        self.was_tried = False
        self._is_wanted = wanted.name != "none"
        if wanted.is_named and (failure := device_failure(wanted.name, wanted.number)):
            raise UsageError(f"--hwaccel {wanted.name} cannot run here: {failure}; {_describe_here(wanted.number)}")

    @property
    def decoder(self) -> str:
        return self.device_type or SOFTWARE

    def open(self, open: Callable[..., Any], choose_stream: Callable[[Any], Any], is_seekable: bool = True) -> Any:
        """The container that ``open`` returns, opened with the device where that decodes the stream of it which
        ``choose_stream`` returns. Raises what ``open`` raises.
        """
        if not self._is_wanted:
            return open()
        if not self.device_type:  # looked at before: a device takes 0.1 s to open
            container = open()
            self.device_type = self._choose(choose_stream(container), is_seekable)
            if not self.device_type:
                return container
            container.close()
        self.was_tried = True
        try:
            return open(hwaccel=accelerator(self.device_type, self._wanted.number))
        except SourceError as error:
            self.fail(str(error))
            return open()

    def fail(self, reason: str) -> None:
        """From now on, decode in software."""
        self._is_wanted, self.device_type = False, ""
        self.reason = reason

    def _choose(self, stream: Any, is_seekable: bool) -> str:
        """The type of device that decodes the stream, or "" with the reason."""
        context: Any = None if stream is None else stream.codec_context
        refusal = "it holds no video" if context is None else refusal_of(context)
        if not is_seekable:
            refusal = "what is read once only is decoded in software"
        elif context and not self._wanted.is_named and context.width * context.height < MIN_PIXELS:
            refusal = refusal or f"{context.width}x{context.height} is decoded as fast in software"
        elif not self._wanted.is_named and usable_cores() > MAX_CORES:
            refusal = refusal or f"{usable_cores()} cores decode faster in software"
        for name in () if refusal else self._wanted.device_types:
            if not device_failure(name, self._wanted.number):
                return name
        self.fail(refusal or f"no GPU decodes here for --device {self._wanted.device}")
        return ""


def refusal_of(context: Any) -> str:
    """Why no device decodes the stream of a codec context as software does; "" where one may."""
    codec, pixels = context.codec.canonical_name, context.pix_fmt
    if codec not in EXACT_CODECS:
        return f"{codec} is decoded in software only"
    return "" if pixels in FORMATS else f"{codec} in {pixels} is decoded in software only"


class HardwareDecoder:
    """Decodes packets on the device of ``context``, and compares the first picture with that of ``software``.

    ``decode`` gives pictures in the pixel format of software, with the same times, tags and side data, and raises
    HardwareError.
    """

    def __init__(self, context: Any, software: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self._context = context
        self._software = software
        """None when the first picture was compared."""
        self._reformat = VideoReformatter().reformat
        self._ahead: tuple[list[Any], list[Any]] = [], []
        """Pictures of the device and of software that were not compared yet."""
        self._form: tuple[Any, ...] = ()
        self._pixels = ""

    def decode(self, packet: Any) -> list[Any]:
        from av import FFmpegError

        if self._software is not None:
            return self._decode_both(packet)
        try:
            return [self._to_software(picture) for picture in self._context.decode(packet)]
        except FFmpegError as error:
            raise HardwareError(f"the device failed ({error_text(error)})") from None

    def flush(self) -> None:
        """Forget what was decoded."""
        if self._software is not None:
            self._ahead = [], []
            self._software.flush_buffers()

    def _decode_both(self, packet: Any) -> list[Any]:
        """Raises FFmpegError where neither can decode the packet."""
        from av import FFmpegError

        of_device, of_software = self._ahead
        of_software += self._software.decode(packet)
        try:
            of_device += self._context.decode(packet)
        except FFmpegError as error:
            raise HardwareError(f"the device failed ({error_text(error)})") from None
        if of_device and of_software:
            self._begin(of_device[0], of_software[0])
            return [self._to_software(picture) for picture in of_device]
        if max(map(len, self._ahead)) > MAX_UNCHECKED or (packet is None and any(self._ahead)):
            raise HardwareError("the device gives no picture")
        return []

    def _begin(self, picture: Any, expected: Any) -> None:
        self._pixels, self._form = expected.format.name, _form_of(picture)
        if FORMATS.get(self._pixels) != picture.format.name:
            raise HardwareError(f"the device does not decode this kind of {self._context.name}")
        whole = self._to_software(picture)
        if _tags_of(whole) != _tags_of(expected) or planes.checksum(whole) != planes.checksum(expected):
            raise HardwareError("the device decodes another first picture than software")
        if lost := side_data_kinds(expected) - side_data_kinds(whole):
            raise HardwareError(f"the device loses {', '.join(sorted(lost)).lower()}")
        self._software, self._ahead = None, ([], [])

    def _to_software(self, picture: Any) -> Any:
        if _form_of(picture) != self._form:
            raise HardwareError("the pictures change their size or format")
        return self._reformat(picture, format=self._pixels, threads=1)


def _form_of(picture: Any) -> tuple[Any, ...]:
    return picture.width, picture.height, picture.format.name, int(picture.color_range)


def _tags_of(picture: Any) -> tuple[Any, ...]:
    return (picture.width, picture.height, picture.pts, picture.key_frame, picture.interlaced_frame,
            int(picture.colorspace), int(picture.color_range), int(picture.color_primaries), int(picture.color_trc))


@cache
def say_once(text: str) -> None:
    """Log what decodes a source: a render opens it several times."""
    log.info("%s", text)


# What touches a device.


def accelerator(device_type: str, number: str | None = None) -> Any:
    """What ``av.open`` takes as ``hwaccel``. A profile that the device does not decode is decoded in software."""
    from av.codec.hwaccel import HWAccel

    return HWAccel(device_type, number, allow_software_fallback=True)


def decoding_context(stream: Any) -> Any:
    """The codec context that decodes the stream on a device; None where it is decoded in software."""
    return stream.codec_context if stream.codec_context.is_hwaccel else None


@cache
def device_failure(device_type: str, number: str | None = None) -> str:
    """Why no such device can be opened here; "" where one can."""
    from av import FFmpegError
    from av.codec import Codec

    if device_type not in types_built_in():
        return "this PyAV is built without it"
    try:
        accelerator(device_type, number).create(Codec(EXACT_CODECS[0], "r"))
    except NotImplementedError:
        return "this PyAV does not decode with it"
    except (FFmpegError, ValueError) as error:
        return f"no GPU for it ({error_text(error)})"
    return ""


def types_built_in() -> list[str]:
    """The types of devices that PyAV was built with and that decode, of those in ``HWACCELS``."""
    from av.codec.hwaccel import hwdevices_available

    return [name for name in hwdevices_available() if name in HWACCELS]


def _describe_here(number: str | None) -> str:
    working = [name for name in types_built_in() if not device_failure(name, number)]
    return f"here: {', '.join([*working, 'auto', 'none'])}"
