"""HDR pictures to SDR: small ones to dream on, whole ones for an output that cannot hold HDR."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.color_matrix import component_matrix
from streamdream.media.input_container import BT709, ColorTags
from streamdream.media.opencv import cv2
from streamdream.media.planes import Samples, bits_of, component_views, to_planar, to_rgb
from streamdream.media.pyav import copy_times
from streamdream.media.resize import downscale_area
from streamdream.media.tone_map import SDR_STEPS, Pixels, ToneMap, look_up, tone_map_of
from streamdream.media.transfer_functions import PEAK


def is_hdr(color: ColorTags) -> bool:
    """Whether pictures of these colours are PQ or HLG."""
    return color.trc in PEAK


def is_hdr_picture(picture: Any) -> bool:
    """Whether a PyAV frame is tagged as PQ or HLG, in Y'CbCr."""
    return picture.color_trc in PEAK and not picture.format.is_rgb


def tone_mapped_rgb(picture: Any, width: int, height: int) -> NDArray[np.uint8]:
    """An HDR PyAV frame -> [height, width, 3] SDR RGB, BT.709. It is scaled down first, in code values."""
    components, tone_map = components_of(picture)
    sdr = tone_map.to_sdr(samples_at(components, width, height))
    return np.rint(sdr * 255).astype(np.uint8)


def to_sdr_rgb(picture: Any) -> NDArray[np.uint8]:
    """What is shown of a picture: an image [H, W, 3] RGB itself, a PyAV frame as RGB, tone-mapped where it is HDR."""
    if not isinstance(picture, np.ndarray) and is_hdr_picture(picture):
        picture = tone_map_picture(picture)
    return to_rgb(picture)


def tone_map_picture(picture: Any, color: ColorTags | None = None) -> Any:
    """An HDR PyAV frame -> an SDR one of the same size and time: yuv420p, with the tags ``BT709``.

    ``color`` None is what the picture's own tags say. Colours are mapped at half the size, which is that of their
    planes; the details of luma by its own value.
    """
    from av import VideoFrame

    components, tone_map = components_of(picture, color)
    luma = components[0]
    samples = samples_at(components, (picture.width + 1) // 2, (picture.height + 1) // 2)
    small = cv2().transform(tone_map.to_sdr(samples), component_matrix(False, BT709.colorspace, BT709.range, 8))
    scale = np.float32(219 / SDR_STEPS)
    correction = small[..., 0] - scale * look_up(samples[..., 0].astype(np.uint16), tone_map.grey_to_sdr)
    correction = cv2().resize(correction, luma.shape[::-1], interpolation=cv2().INTER_LINEAR)
    detail = scale * look_up(luma.astype(np.uint16, copy=False), tone_map.grey_to_sdr)
    result: Any = VideoFrame(picture.width, picture.height, "yuv420p")
    for view, values in zip(component_views(result), (16 + detail + correction, 128 + small[..., 1],
                                                      128 + small[..., 2]), strict=True):
        view[:] = np.clip(np.rint(values), 1, 254)
    result.colorspace, result.color_primaries = BT709.colorspace, BT709.primaries
    result.color_trc, result.color_range = BT709.trc, BT709.range
    copy_times(picture, result)
    return result


def components_of(picture: Any, color: ColorTags | None = None) -> tuple[list[Samples], ToneMap]:
    """Views of Y', Cb and Cr of an HDR picture (of a copy, where it is not planar), and what maps them."""
    color = color or ColorTags(picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range)
    planar = to_planar(picture)
    return component_views(planar)[:3], tone_map_of(color, bits_of(planar))


def samples_at(components: list[Samples], width: int, height: int) -> Pixels:
    """[height, width, 3] float32."""
    return np.dstack([component if component.shape == (height, width) else downscale_area(component, height, width)
                      for component in components]).astype(np.float32)
