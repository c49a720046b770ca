"""The samples of decoded pictures in their own pixel format: views of the planes, copies, turned pictures.

All work on *planar* pictures: one plane for each component (Y', Cb, Cr or R, G, B, and alpha), 8 to 16 bits,
little-endian. ``to_planar`` makes one of any other picture, without loss.
"""
from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.pyav import copy_times

if TYPE_CHECKING:
    from streamdream.media.input_container import Rotation

FULL_RANGE = 2
Samples = NDArray[Any]
"""uint8 or uint16 [h, w] of one component."""
Converter = Callable[..., Any]
"""``reformat`` of an ``av.video.reformatter.VideoReformatter``, which keeps its tables between pictures."""


def is_planar(format: Any) -> bool:
    components = format.components
    return (len({component.plane for component in components}) == len(components) >= 3
            and not format.is_big_endian and max(component.bits for component in components) <= 16)


def planar_format(format: Any) -> str:
    """The planar format that holds all samples of a format: itself, where that is one. A grey picture gets chroma."""
    if is_planar(format):
        return str(format.name)
    components = format.components
    bits, alpha = max(component.bits for component in components), any(part.is_alpha for part in components)
    depth = next((depth for depth in (8, 10, 12) if bits <= depth), 16)
    if format.is_rgb or format.name.startswith(("pal", "xyz")):
        name = "gbrap" if alpha else "gbrp"
    else:
        name = "yuva" if alpha else "yuv"
        luma, chroma = components[0], components[1] if len(components) >= 3 else components[0]
        name += {(False, False): "444p", (True, False): "422p"}.get(
            (chroma.width < luma.width, chroma.height < luma.height), "420p")
    return name if depth == 8 else f"{name}{depth}le"


def to_planar(picture: Any, convert: Converter | None = None) -> Any:
    """The picture itself where it is planar."""
    from av.video.reformatter import VideoReformatter

    name, components = planar_format(picture.format), picture.format.components
    if name == picture.format.name:
        return picture
    if len(components) <= 2 and name.startswith("yuv") and components[0].bits in (8, 10, 12, 16):
        return _grey_to_planar(picture, name)
    return (convert or VideoReformatter().reformat)(picture, format=name, threads=1)


def _grey_to_planar(picture: Any, name: str) -> Any:
    """With neutral chroma: swscale takes all grey for the full range, and would change its samples."""
    count, bits, plane = len(picture.format.components), picture.format.components[0].bits, picture.planes[0]
    dtype = np.dtype("u1" if bits == 8 else ">u2" if picture.format.is_big_endian else "<u2")
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    rows = rows[:plane.height, :picture.width * count]
    result = new_picture(picture, format=name)
    result.color_range = int(picture.color_range) or FULL_RANGE
    luma, *chroma = component_views(result)
    luma[:] = rows[:, ::count]
    for view in chroma[:2]:
        view[:] = 1 << bits - 1
    for view in chroma[2:]:
        view[:] = rows[:, 1::count]
    return result


def component_views(picture: Any) -> list[Samples]:
    """The samples of each component of a planar picture: Y', Cb, Cr or R, G, B, then alpha if there is one.

    They are [h, w], at the size of the component, and share memory with the picture.
    """
    views: list[Samples] = []
    for component in picture.format.components:
        plane = picture.planes[component.plane]
        dtype: Any = np.uint8 if component.bits <= 8 else np.uint16
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype().itemsize)
        views.append(rows[:plane.height, :plane.width])
    return views


def new_picture(like: Any, width: int = 0, height: int = 0, format: str = "") -> Any:
    """A picture with undefined samples, of the time and colours of another one; 0 and "" are the size and the pixel
    format of that.
    """
    from av import VideoFrame

    picture = VideoFrame(width or like.width, height or like.height, format or like.format.name)
    copy_times(like, picture)
    picture.colorspace, picture.color_range = like.colorspace, like.color_range
    picture.color_primaries, picture.color_trc = like.color_primaries, like.color_trc
    return picture


def copy_picture(picture: Any) -> Any:
    """A planar picture with memory of its own: that of a decoded one belongs to the decoder, which refers to it."""
    copy = new_picture(picture)
    for old, new in zip(component_views(picture), component_views(copy), strict=True):
        new[:] = old
    return copy


def make_upright(picture: Any, rotation: Rotation, convert: Converter) -> Any:
    """Turn a planar picture. With chroma that is halved in one direction only, that gets full chroma."""
    if not (rotation.transpose or rotation.flip_rows or rotation.flip_columns):
        return picture
    views = component_views(picture)
    if rotation.transpose and len({views[0].shape[axis] == views[1].shape[axis] for axis in (0, 1)}) > 1:
        full = picture.format.name.replace("422p", "444p").replace("440p", "444p").replace("411p", "444p")
        picture = convert(picture, format=full, threads=1)
        views = component_views(picture)
    size = (picture.height, picture.width) if rotation.transpose else (picture.width, picture.height)
    turned = new_picture(picture, *size)
    for old, new in zip(views, component_views(turned), strict=True):
        new[:] = rotation(old)
    return turned


def pad_edges(picture: Any, right: int, below: int) -> Any:
    """Repeat the last columns and rows of a planar picture."""
    padded = new_picture(picture, picture.width + right, picture.height + below)
    for old, new in zip(component_views(picture), component_views(padded), strict=True):
        missing = [(0, new.shape[axis] - old.shape[axis]) for axis in (0, 1)]
        new[:] = np.pad(old, missing, mode="edge")
    return padded


@dataclass(frozen=True)
class PlanarArrays:
    """A planar picture as plain data."""

    components: list[Samples]
    """As ``component_views`` returns them."""
    tags: list[Any]
    """Pixel format, then the numbers of matrix, range, primaries and transfer."""


def to_arrays(picture: Any) -> PlanarArrays:
    return PlanarArrays(component_views(picture), [picture.format.name, int(picture.colorspace),
                        int(picture.color_range), int(picture.color_primaries), int(picture.color_trc)])


def from_arrays(arrays: PlanarArrays) -> Any:
    from av import VideoFrame

    height, width = arrays.components[0].shape
    name, *tags = arrays.tags
    picture: Any = VideoFrame(width, height, name)
    picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc = tags
    for view, samples in zip(component_views(picture), arrays.components, strict=True):
        view[:] = samples
    return picture


def to_rgb(picture: Any) -> NDArray[np.uint8]:
    """An image [H, W, 3], RGB, is itself; of a PyAV frame one is made, by its tags."""
    if isinstance(picture, np.ndarray):
        return picture
    result: NDArray[np.uint8] = picture.reformat(format="rgb24", threads=1).to_ndarray()
    return result


def checksum(picture: Any) -> int:
    """CRC-32 of all samples of a planar picture."""
    result = 0
    for view in component_views(picture):
        result = zlib.crc32(view.tobytes(), result)
    return result


def is_opaque(picture: Any) -> bool:
    """Whether a planar picture has no alpha, or one that hides nothing."""
    if not picture.format.components[-1].is_alpha:
        return True
    return bool(component_views(picture)[-1].min() == maximum(picture))


def bits_of(picture: Any) -> int:
    return int(picture.format.components[0].bits)


def maximum(picture: Any) -> int:
    """The largest sample."""
    return (1 << bits_of(picture)) - 1
