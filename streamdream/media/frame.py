"""A frame of the input, and conversions between uint8 pictures and float tensors."""
from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import UsageError
from streamdream.media import planes

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.media.timestamps import SourcePosition


Picture = Any
"""uint8 [H, W, 3] RGB, or a planar PyAV frame (see ``planes.py``)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded picture: upright, RGB."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    pts_seconds: float
    """Presentation time since the start of the output."""
    pts: int = 0
    """The same time in ``time_base`` units, exact; file sinks write this one."""
    time_base: tuple[int, int] = (1, 1000)
    """Numerator and denominator of one ``pts`` unit, in seconds."""
    position: SourcePosition | None = None
    """Where a source that can go on from a frame finds it again."""
    picture: Picture | None = None
    """The same picture, upright, as a PyAV frame in its own pixel format, size and colours, to compose the dream in;
    ``image`` may then be smaller. None where only ``image`` is wanted."""
    discontinuity: bool = False
    """Whether the frame does not follow from the one before it, as after a change of size: its dream begins anew."""

    def __post_init__(self) -> None:
        check_picture(self.image)

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height} at {self.pts_seconds:.3f} s)"

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])


def blank_frame(pts_seconds: float) -> Frame:
    """A frame of one black pixel: where only the time counts."""
    return Frame(np.zeros((1, 1, 3), np.uint8), pts_seconds)


def check_picture(image: object) -> None:
    """Raise UsageError where the image is not a NumPy array of uint8 [H, W, 3]."""
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return
        values = f", values {image.min():.4g}..{image.max():.4g}" if image.size and image.dtype.kind in "biuf" else ""
        what = f"{image.dtype} {list(image.shape)}{values}"
    else:
        what = f"a {type(image).__module__}.{type(image).__name__}".replace("builtins.", "")
    raise UsageError(f"a picture must be a NumPy array of uint8 [H, W, 3], RGB, values 0..255, but is {what}")


def picture_checksum(frame: Frame) -> int:
    """CRC-32 of the samples of its picture, or of its image where it has none."""
    return planes.checksum(frame.picture) if frame.picture is not None else zlib.crc32(frame.image.tobytes())


def picture_size(picture: Picture) -> tuple[int, int]:
    """(height, width) of an image [H, W, 3] or of a PyAV frame."""
    return picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)


def to_tensor(image: NDArray[np.floating]) -> Tensor:
    """[H, W, C] float in [-1, 1] -> [1, C, H, W] float32, channels last in memory; shares memory with float32 input."""
    import torch

    hwc = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    return hwc.unsqueeze(0).permute(0, 3, 1, 2)


def to_array(picture: Tensor) -> NDArray[np.float32]:
    """[1, 3, H, W] -> [H, W, 3] float32 on the CPU; shares memory where possible."""
    return np.ascontiguousarray(picture.detach()[0].permute(1, 2, 0).float().cpu().numpy())


def to_signed_unit(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return image.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """float in [-1, 1] -> uint8 0..255, rounded and clipped."""
    result: NDArray[np.uint8] = np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)
    return result
