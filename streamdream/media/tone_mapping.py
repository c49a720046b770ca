"""HDR pictures to SDR: small ones to dream on, whole ones for an output that cannot hold HDR."""
from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.input_container import ColorTags
from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area
from streamdream.media.tone_map import SDR_STEPS, Pixels, look_up, tone_map_of
from streamdream.media.transfer_functions import PEAK, luma_matrix

BT709 = ColorTags(1, 1, 1)
"""The colours of what ``tone_map_picture`` returns."""
PLANAR = re.compile(r"yuva?4[0-9]{2}p(9|1[0-6])?(le)?")
"""Pixel formats whose first three planes are Y', Cb and Cr in the low bits of native integers."""


def is_hdr(color: ColorTags) -> bool:
    """Whether pictures of these colours are PQ or HLG."""
    return color.trc in PEAK


def tone_mapped_rgb(picture: Any, color: ColorTags, width: int, height: int) -> NDArray[np.uint8]:
    """An HDR PyAV frame -> [height, width, 3] SDR RGB, BT.709. It is scaled down first, in code values."""
    planes, bits = sample_planes(picture)
    samples = np.dstack([downscale_area(plane, height, width) for plane in planes]).astype(np.float32)
    return np.rint(tone_map_of(color, bits).to_sdr(samples) * 255).astype(np.uint8)


def tone_map_picture(picture: Any, color: ColorTags | None = None) -> Any:
    """An HDR PyAV frame -> an SDR one of the same size: yuv420p, with the tags ``BT709`` and the same time.

    ``color`` None takes the picture's own tags. Colours are mapped at half the size, which is that of their planes;
    the details of luma by what its own value says.
    """
    from av import VideoFrame

    color = color or ColorTags(picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range or 1)
    planes, bits = sample_planes(picture)
    tone_map = tone_map_of(color, bits)
    samples = half_size_samples(planes)
    small = cv2().transform(tone_map.to_sdr(samples), luma_matrix(1))
    correction = small[..., 0] * SDR_STEPS - look_up(np.rint(samples[..., 0]).astype(np.uint16), tone_map.grey_to_sdr)
    luma = cv2().add(look_up(_as_uint16(planes[0]), tone_map.grey_to_sdr), _resized(correction, planes[0].shape),
                     dtype=cv2().CV_32F)
    result = VideoFrame(picture.width, picture.height, "yuv420p")
    for plane, values in zip(result.planes, (16 + luma * np.float32(219 / SDR_STEPS), 128 + 224 * small[..., 1],
                                             128 + 224 * small[..., 2]), strict=True):
        view = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        view[:, :plane.width] = np.clip(np.rint(values), 1, 254)
    result.colorspace, result.color_primaries = BT709.colorspace, BT709.primaries
    result.color_trc, result.color_range = BT709.trc, BT709.range
    result.pts, result.time_base = picture.pts, picture.time_base
    return result


def sample_planes(picture: Any) -> tuple[list[NDArray[Any]], int]:
    """Views of Y', Cb and Cr of an HDR picture, [H, W] of uint8 or uint16, and the bits of a sample.

    Those of a copy where the pixel format is none of ``PLANAR``.
    """
    if not PLANAR.fullmatch(picture.format.name):
        picture = picture.reformat(format="yuv444p12le")
    bits = picture.format.components[0].bits
    kind = np.uint8 if bits == 8 else np.uint16
    return [np.frombuffer(plane, kind).reshape(plane.height, -1)[:, :plane.width] for plane in picture.planes[:3]], bits


def half_size_samples(planes: list[NDArray[Any]]) -> Pixels:
    """[ceil(H / 2), ceil(W / 2), 3] float32 code values."""
    height, width = ((length + 1) // 2 for length in planes[0].shape)
    return np.dstack([plane if plane.shape == (height, width) else
                      cv2().resize(plane, (width, height), interpolation=cv2().INTER_AREA) for plane in planes]
                     ).astype(np.float32)


def _as_uint16(plane: NDArray[Any]) -> NDArray[np.uint16]:
    return plane.astype(np.uint16, copy=False)


def _resized(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    result: NDArray[Any] = cv2().resize(values, (shape[1], shape[0]), interpolation=cv2().INTER_LINEAR)
    return result
