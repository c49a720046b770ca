"""Choose how pictures are stored: the pixel format nearest to theirs which players show, and their colours."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streamdream.errors import UnknownName
from streamdream.media.input_container import BT709, ColorTags, is_yuv
from streamdream.media.sinks.encoders import Container, Encoder, stored_color
from streamdream.settings import RenderSettings

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

COMMON_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv422p10le", "yuv420p10le", "nv12", "gbrp", "rgb24",
                  "bgr24", "bgr0", "bgra", "pal8")
"""Of lossy encoders; the first that one offers."""
LOSSY_CODECS, LOSSLESS = 2, 4
"""FFmpeg's AV_CODEC_PROP_*."""
DEEP_HDR = "yuv420p10le"
"""As which HDR of 8 bits counts."""
H273_UNSPECIFIED = 2
ALPHA_CODECS = {".mov": "prores_ks", ".mkv": "ffv1", ".avi": "ffv1", ".nut": "rawvideo"}
"""Which ``-c:v`` keeps transparency, where there is one."""


@dataclass(frozen=True)
class StoredPictures:
    """How the pictures of a source are stored."""

    pixels: str
    color: ColorTags
    tone_map: bool
    """Whether HDR becomes SDR."""
    is_tagged: bool
    """Whether the output says its colours: the input did, or they were chosen here."""
    warnings: tuple[str, ...] = ()
    alpha_lost: str = ""
    """Said when the first picture comes that is not opaque, where the very first one is."""

    @classmethod
    def of(cls, source: Source, settings: RenderSettings, kind: Container, codec: Any, encoder: Encoder, suffix: str
           ) -> StoredPictures:
        """Raises UnknownName for a pixel format that the encoder does not take."""
        given, color, warnings, alpha_lost = source.pixel_format, source.color, [], ""
        is_hdr, lossless = has_hdr(source), is_lossless(codec)
        deep = is_hdr and bits(given) <= 8 and not lossless  # a dream in 8 bits of HDR would show steps
        pixels = choose_format(codec, encoder, DEEP_HDR if deep else given, settings.pixel_format)
        keeps_hdr = (is_hdr and not settings.sdr and (bits(pixels) > 8 or (lossless and pixels == given))
                     and (encoder.hdr or lossless) and (kind.tags_color or encoder.tags_color))
        if is_hdr and not keeps_hdr:
            pixels = choose_format(codec, encoder, "yuv420p", settings.pixel_format)
            color = BT709
            warnings.append("the HDR input is mapped to SDR (BT.709)" + (
                "" if settings.sdr else f": {codec.name} in {suffix} holds no HDR that players show"))
        if has_alpha(given) and not has_alpha(pixels):
            keeper = ALPHA_CODECS.get(suffix)
            alpha_lost = (f"{codec.name} in {suffix} holds no transparency: it becomes black; "
                          + (f"-c:v {keeper} keeps it" if keeper and keeper != codec.name and not is_hdr
                             else ".mov with -c:v prores_ks, .webp, .apng and .png keep it"))
            if source.transparent:
                warnings.append(alpha_lost)
        stored = stored_color(color, source.height, kind, encoder)
        chosen_here = stored != color or (is_yuv_format(pixels) and not is_yuv_format(given))
        is_tagged = color.tagged or chosen_here
        return cls(pixels, stored, is_hdr and not keeps_hdr, is_tagged, tuple(warnings),
                   "" if source.transparent else alpha_lost)

    def tag(self, context: Any) -> None:
        """Write the colours into the context of the encoder."""
        color = self.color if self.is_tagged else replace(self.color, colorspace=H273_UNSPECIFIED,
                                                          primaries=H273_UNSPECIFIED, trc=H273_UNSPECIFIED)
        yuv = is_yuv(context.format)
        context.colorspace = color.colorspace if yuv else 0
        context.color_range = (color.range if self.is_tagged or color.range == 2 else 0) if yuv else 2
        context.color_primaries, context.color_trc = color.primaries, color.trc


def has_hdr(source: Source) -> bool:
    """Whether its pictures are PQ or HLG, as ``tone_mapping.is_hdr_picture`` says of each."""
    from streamdream.media.tone_mapping import is_hdr

    return is_hdr(source.color) and is_yuv_format(source.pixel_format)


def wants_hdr(source: Source, settings: RenderSettings) -> bool:
    """Whether ``-c:v auto`` is an encoder for HDR."""
    return has_hdr(source) and not settings.sdr


def choose_format(codec: Any, encoder: Encoder, source_format: str, wanted: str = "auto") -> str:
    """The format that ``codec`` gets pictures of ``source_format`` in: that one itself for a lossless encoder.

    Raises UnknownName where the user has ``wanted`` another one than the encoder takes.
    """
    offered = offered_formats(codec)
    if wanted != "auto":
        if offered and wanted not in offered:
            raise UnknownName(f"pixel format of {codec.name}", wanted, offered)
        return wanted
    if not offered:
        return nearest(encoder.formats, source_format) if encoder.formats else source_format
    if codec.name == "gif":
        return "pal8"
    shown = [name for name in encoder.formats if name in offered]
    if is_lossless(codec):
        return source_format if source_format in (shown or offered) else nearest(shown or offered, source_format)
    return nearest(shown, source_format) if shown else next((name for name in COMMON_FORMATS if name in offered),
                                                            offered[0])


def offered_formats(codec: Any) -> list[str]:
    """Formats of pictures in memory; empty where it takes all."""
    return [format.name for format in codec.video_formats or () if format.components]


def is_lossless(codec: Any) -> bool:
    return bool(codec.properties & LOSSLESS and not codec.properties & LOSSY_CODECS)


def nearest(names: Sequence[str], source_format: str) -> str:
    """The one of ``names`` that loses least of pictures of ``source_format``."""
    from av.codec.codec import find_best_pix_fmt_of_list

    alpha = has_alpha(source_format)
    same = [name for name in names if has_alpha(name) == alpha and name != "pal8"]
    best: Any
    best, _ = find_best_pix_fmt_of_list(same or list(names), source_format, has_alpha=alpha)
    return str(best.name)


def has_alpha(name: str) -> bool:
    from av import VideoFormat

    return any(component.is_alpha for component in VideoFormat(name).components)


def bits(name: str) -> int:
    """Of a sample."""
    from av import VideoFormat

    return max((component.bits for component in VideoFormat(name).components), default=8)


def is_yuv_format(name: str) -> bool:
    from av import VideoFormat

    return is_yuv(VideoFormat(name))
