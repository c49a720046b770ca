"""Bring pictures of any pixel format into that of an encoder: exactly where it can hold all of them."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np

from streamdream.media import planes
from streamdream.media.color_matrix import FULL_RANGE
from streamdream.media.input_container import MATRIX_DEFAULTS, ColorTags, is_yuv
from streamdream.media.sinks.encoders import say_once
from streamdream.media.sinks.pixel_formats import bits, has_alpha

Convert = Callable[[Any], Any]
"""A PyAV frame -> another one, or itself."""
ANY_TICK = Fraction(1, 1000)
"""Of a filter that goes by the order of pictures."""


def converter(pixels: str, color: ColorTags, source_color: ColorTags, tone_map: bool = False,
              alpha_lost: str = "") -> Convert:
    """A converter of pictures, whose missing tags are those of ``source_color``, to the format and colours given.

    Alpha that ``pixels`` has not becomes black; ``alpha_lost`` is said when the first such picture comes. With
    ``tone_map`` HDR is mapped to BT.709.
    """
    from av.video.reformatter import VideoReformatter

    change = to_palette(color, source_color) if pixels == "pal8" else to_pixels(pixels, color, source_color)

    def convert(picture: Any) -> Any:
        if tone_map:
            from streamdream.media.tone_mapping import tone_map_picture

            picture.time_base = picture.time_base or ANY_TICK
            picture = tone_map_picture(picture, source_color)
        if has_alpha(picture.format.name) and not has_alpha(pixels):
            if alpha_lost and not planes.is_opaque(planes.to_planar(picture, VideoReformatter().reformat)):
                say_once(alpha_lost)
            picture = flatten(picture, source_color)
        return change(picture)

    return convert


def to_pixels(pixels: str, color: ColorTags, source_color: ColorTags | None = None) -> Convert:
    """A converter to the pixel format ``pixels`` and the colours ``color``."""
    from av import VideoFormat
    from av.video.reformatter import Interpolation, VideoReformatter

    source_color = source_color or color
    reformat, to_between = VideoReformatter().reformat, VideoReformatter().reformat
    to_rgb, is_deep = not is_yuv(VideoFormat(pixels)), bits(pixels) > 8
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

    def convert(picture: Any) -> Any:
        if not is_yuv(picture.format):
            picture.colorspace, picture.color_range = color.colorspace, color.range  # the result inherits them
            return reformat(picture, format=pixels, threads=1, interpolation=exact if is_deep else None)
        matrix, levels = yuv_tags(picture, source_color)
        picture.colorspace, picture.color_range = matrix, levels
        if pixels == picture.format.name and (matrix, levels) == (color.colorspace, color.range):
            return picture
        if not to_rgb and matrix != color.colorspace:  # swscale changes the matrix on the way to and from RGB only
            between = "gbrap16le" if has_alpha(picture.format.name) else "gbrp16le"
            picture = to_between(picture, format=between, src_colorspace=matrix, src_color_range=levels,
                                 dst_color_range=FULL_RANGE, threads=1, interpolation=exact)
            picture.colorspace, picture.color_range = color.colorspace, color.range
            return reformat(picture, format=pixels, threads=1, interpolation=exact)
        return reformat(picture, format=pixels, src_colorspace=matrix, src_color_range=levels,
                        dst_colorspace=color.colorspace, dst_color_range=color.range, threads=1,
                        interpolation=None if to_rgb and not is_deep else exact)  # as frames are decoded

    return convert


def yuv_tags(picture: Any, color: ColorTags) -> tuple[int, int]:
    """Matrix and range of a picture, by its own tags, or else by those of its source."""
    full = FULL_RANGE if picture.format.name.startswith("yuvj") else 0
    return (picture.colorspace if picture.colorspace in MATRIX_DEFAULTS else color.colorspace,
            full or picture.color_range or color.range)


def flatten(picture: Any, color: ColorTags) -> Any:
    """Lay a picture with alpha over black; the result has no alpha that counts."""
    planar = planes.to_planar(picture)
    result = planes.copy_picture(planar)
    *parts, alpha = planes.component_views(result)
    depth = bits(planar.format.name)
    full = not is_yuv(planar.format) or yuv_tags(picture, color)[1] == FULL_RANGE
    opacity = alpha.astype(np.float32) / ((1 << depth) - 1)
    for number, samples in enumerate(parts):
        black = 0 if number == 0 or not is_yuv(planar.format) else 1 << depth - 1
        black = black if full or number else 16 << depth - 8
        down, across = (round(whole / part) for whole, part in zip(alpha.shape, samples.shape, strict=True))
        shown = opacity[::down, ::across][:samples.shape[0], :samples.shape[1]]
        samples[:] = np.rint((samples.astype(np.float32) - black) * shown) + black
    return result


def to_palette(color: ColorTags, source_color: ColorTags) -> Convert:
    """A converter to 256 colours, chosen for each picture."""
    to_rgb = to_pixels("rgb24", color, source_color)
    graph: Any = None
    numbers = count()

    def convert(picture: Any) -> Any:
        nonlocal graph
        picture = to_rgb(picture)
        graph = graph or palette_graph(picture)
        picture.pts, picture.time_base = next(numbers), ANY_TICK
        graph.push(picture)
        return graph.pull()

    return convert


def palette_graph(picture: Any) -> Any:
    from av.filter import Graph

    graph: Any = Graph()
    entry = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format,
                             time_base=ANY_TICK)
    split, end = graph.add("split"), graph.add("buffersink")
    choose = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3")
    split.link_to(use, 0, 0)
    split.link_to(choose, 1, 0)
    choose.link_to(use, 0, 1)
    entry.link_to(split)
    use.link_to(end)
    graph.configure()
    return graph
