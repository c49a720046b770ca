"""Resize pictures on their device as OpenCV does on the processor: ``media/resize.py`` on tensors.

Float32 [N, C, H, W] in and out. Sizes are fixed, and nothing waits for the host, so that each function can be a part of
a CUDA graph or of an exported graph.
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.media.opencv import cv2
from streamdream.system.tensor_cache import cached_tensor

LARGEST_POOL = 64
"""Pixels of an area that are averaged by a pool: one thread of a GPU sums all of them."""


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Area averages when smaller, cubic when larger, the picture itself when equal."""
    is_smaller = height * width < picture.shape[-2] * picture.shape[-1]
    return (resize_area if is_smaller else resize_cubic)(picture, height, width)


def resize_area(picture: Tensor, height: int, width: int) -> Tensor:
    """As INTER_AREA: the mean of the area that each pixel covers. The picture itself when the size is equal."""
    from_height, from_width = picture.shape[-2:]
    if (from_height, from_width) == (height, width):
        return picture
    is_pool = from_height % height == 0 and from_width % width == 0
    if is_pool and from_height * from_width <= LARGEST_POOL * height * width:
        return F.avg_pool2d(picture, (from_height // height, from_width // width))
    shrinks = height <= from_height and width <= from_width
    rows, columns = (area_weights(*sizes, shrinks, picture.device)
                     for sizes in ((from_height, height), (from_width, width)))
    result: Tensor = rows @ picture @ columns.T
    return result


def resize_linear(picture: Tensor, height: int, width: int) -> Tensor:
    """As INTER_LINEAR: between the four nearest pixels, also when smaller."""
    return _interpolate(picture, height, width, "bilinear")


def resize_cubic(picture: Tensor, height: int, width: int) -> Tensor:
    """As INTER_CUBIC: between the 4x4 nearest pixels, a = -0.75; it overshoots at edges."""
    return _interpolate(picture, height, width, "bicubic")


def _interpolate(picture: Tensor, height: int, width: int, mode: str) -> Tensor:
    if picture.shape[-2:] == (height, width):
        return picture
    return F.interpolate(picture, size=(height, width), mode=mode, align_corners=False)


@cached_tensor
def area_weights(source: int, target: int, shrinks: bool, device: torch.device) -> Tensor:
    """[target, source]: how much of each row or column goes into each new one, by OpenCV itself. ``shrinks``: no side
    of the picture gets longer; else OpenCV interpolates both sides.
    """
    stretch = 1 if shrinks else 2
    identity = np.eye(source, dtype=np.float32)
    weights = cv2().resize(identity, (source * stretch, target), interpolation=cv2().INTER_AREA)[:, ::stretch]
    return torch.from_numpy(np.ascontiguousarray(weights)).to(device)


def resize_antialiased(picture: Tensor, height: int, width: int) -> Tensor:
    """As PyTorch's bilinear interpolation with antialiasing, which other engines lack."""
    from_height, from_width = picture.shape[-2:]
    rows, columns = (antialiased_weights(*sizes, picture.device)
                     for sizes in ((from_height, height), (from_width, width)))
    result: Tensor = rows @ picture @ columns.T
    return result


@cached_tensor
def antialiased_weights(source: int, target: int, device: torch.device) -> Tensor:
    """[target, source]: how much of each row or column goes into each new one, by PyTorch itself."""
    identity = torch.eye(source)[None, None]
    weights = F.interpolate(identity, size=(target, source), mode="bilinear", antialias=True)
    return weights[0, 0].to(device)
