"""A picture with known colours, corners and number, and what a player would show of a decoded one.

The conversions are NumPy's, not FFmpeg's: a wrong matrix or range in the program must not be judged by the same code.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Picture = NDArray[np.uint8]
SIZE = (96, 64)
"""Width and height of the chart; of other sizes it is a scaled copy, in whole pixels."""
PATCHES: tuple[RGB, ...] = ((190, 60, 50), (60, 170, 70), (50, 70, 190), (128, 128, 128), (222, 178, 145),
                            (235, 235, 235))
"""Red, green, blue, grey, skin, white; from left to right in the middle of the chart."""
CORNERS: dict[str, RGB] = {"top left": (240, 240, 240), "top right": (190, 60, 50), "bottom left": (50, 70, 190),
                           "bottom right": (16, 16, 16)}
BITS = 4
"""Of the number, between the upper corners; the lowest one is left."""
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
           9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Matrix of H.273 -> the weights of red and blue in Y'."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture."""


def chart(number: int = 0, size: tuple[int, int] = SIZE) -> Picture:
    """RGB [H, W, 3] with ``number`` (below 16)."""
    picture = np.full((SIZE[1], SIZE[0], 3), 16, np.uint8)
    for (x, y), color in zip(((0, 0), (80, 0), (0, 48), (80, 48)), CORNERS.values(), strict=True):
        picture[y:y + 16, x:x + 16] = color
    for bit in range(BITS):
        picture[:16, 16 + 16 * bit:32 + 16 * bit] = 235 if number >> bit & 1 else 16
    for place, color in enumerate(PATCHES):
        picture[16:48, 16 * place:16 * place + 16] = color
    return scaled(picture, size)


def scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    """Nearest neighbour."""
    height, width = picture.shape[:2]
    rows = np.arange(size[1]) * height // size[1]
    columns = np.arange(size[0]) * width // size[0]
    return np.ascontiguousarray(picture[rows[:, None], columns])


def moving_bar(number: int, size: tuple[int, int] = SIZE) -> Picture:
    """A white bar on grey that moves four pixels a picture: between two fields it tears into combs."""
    picture = np.full((size[1], size[0], 3), 60, np.uint8)
    left = 8 + 4 * number
    picture[:, left:left + 16] = 235
    return picture


# --- what is shown of a decoded picture


def patch_box(place: int, whole: Box = (0, 0, 1, 1)) -> Box:
    """The inner part of a patch of ``PATCHES``."""
    return _within(whole, ((place + 0.3) / 6, 0.4, (place + 0.7) / 6, 0.6))


def corner_box(name: str, whole: Box = (0, 0, 1, 1)) -> Box:
    left, top = "left" in name, "top" in name
    across, down = (0.04, 0.12) if left else (0.88, 0.96), (0.05, 0.2) if top else (0.8, 0.95)
    return _within(whole, (across[0], down[0], across[1], down[1]))


def _within(whole: Box, part: Box) -> Box:
    width, height = whole[2] - whole[0], whole[3] - whole[1]
    return (whole[0] + width * part[0], whole[1] + height * part[1], whole[0] + width * part[2],
            whole[1] + height * part[3])


def corners_of(frame: Any, whole: Box = (0, 0, 1, 1)) -> dict[str, str]:
    """Place -> the corner of the chart whose colour is nearest to what is there."""
    found = {}
    for place in CORNERS:
        color = color_at(frame, corner_box(place, whole))
        found[place] = min(CORNERS, key=lambda name: float(np.abs(np.array(CORNERS[name]) - color).sum()))
    return found


def number_of(frame: Any, whole: Box = (0, 0, 1, 1)) -> int:
    boxes = [_within(whole, ((bit + 1.3) / 6, 0.06, (bit + 1.7) / 6, 0.19)) for bit in range(BITS)]
    return sum(1 << bit for bit, box in enumerate(boxes) if color_at(frame, box).mean() > 126)


def color_at(frame: Any, box: Box) -> NDArray[np.float64]:
    """The mean R'G'B' in a box, 0..255, as a player shows it: by the frame's tags, or by what players assume."""
    format = frame.format
    if format.name == "pal8" or (format.is_rgb and not format.is_planar):
        return _mean(frame.to_ndarray(format="rgb24"), box)
    if (not format.is_planar or format.name.startswith("nv")) and not format.name.startswith("gray"):
        frame = frame.reformat(format="yuv444p")
    means = [_plane_mean(frame, component, box) for component in frame.format.components]
    bits = frame.format.components[0].bits
    if frame.format.is_rgb:
        color: NDArray[np.float64] = np.array(means[:3]) / (2**bits - 1) * 255
        return color
    return _to_rgb(means[:3] if len(means) > 2 else [means[0], 2.0**(bits - 1), 2.0**(bits - 1)], bits, frame)


def alpha_at(frame: Any, box: Box) -> float:
    """The mean opacity in a box, 0..1; 1 for a format without alpha."""
    if not has_alpha(frame.format):
        return 1.0
    if frame.format.is_planar:
        component = frame.format.components[-1]
        return _plane_mean(frame, component, box) / float(2**component.bits - 1)
    return float(_mean(frame.to_ndarray(format="rgba"), box)[3] / 255)


def has_alpha(format: Any) -> bool:
    return str(format.name).startswith(("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya"))


def _mean(image: NDArray[Any], box: Box) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    left, top, right, bottom = (round(share * side) for share, side in zip(box, (width, height) * 2, strict=True))
    part: NDArray[np.float64] = image[top:bottom, left:right].astype(np.float64).mean(axis=(0, 1))
    return part


def samples(frame: Any, plane: int) -> NDArray[Any]:
    """The bytes of one plane's visible part, [H, bytes]."""
    component = next(part for part in frame.format.components if part.plane == plane)
    packed = sum(part.plane == plane for part in frame.format.components)
    size = 1 if component.bits <= 8 else 2
    step = 4 if frame.format.name in ("bgr0", "rgb0", "0rgb", "0bgr") else packed * size
    stored = frame.planes[plane]
    lines = np.frombuffer(stored, np.uint8)[:stored.height * stored.line_size].reshape(stored.height, -1)
    visible: NDArray[Any] = lines[:, :component.width * step]
    return visible[..., [number for number in range(visible.shape[1]) if step != 4 or packed == 4 or number % 4 != 3]]


def _plane_mean(frame: Any, component: Any, box: Box) -> float:
    plane = frame.planes[component.plane]
    kind: Any = np.dtype("u1" if component.bits <= 8 else ">u2" if frame.format.name.endswith("be") else "<u2")
    samples = np.frombuffer(plane, kind)[:plane.height * (plane.line_size // kind.itemsize)]
    picture = samples.reshape(plane.height, -1)[:, :component.width]
    return float(_mean(picture[..., None], box)[0])


def _to_rgb(means: list[float], bits: int, frame: Any) -> NDArray[np.float64]:
    is_full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    unit = 2.0**(bits - 8)
    luma = means[0] / (2**bits - 1) if is_full else (means[0] - 16 * unit) / (219 * unit)
    blue, red = ((mean - 128 * unit) / ((2**bits - 1) if is_full else 224 * unit) for mean in means[1:])
    k_red, k_blue = WEIGHTS[matrix_of(frame)]
    r, b = luma + 2 * (1 - k_red) * red, luma + 2 * (1 - k_blue) * blue
    g = (luma - k_red * r - k_blue * b) / (1 - k_red - k_blue)
    shown: NDArray[np.float64] = np.clip(np.array([r, g, b]), 0, 1) * 255
    return shown


def matrix_of(frame: Any) -> int:
    """That of the tags; without, players take BT.709 from 1280 columns or 720 lines on, and BT.601 below."""
    if frame.colorspace in WEIGHTS:
        return int(frame.colorspace)
    return 1 if frame.width >= 1280 or frame.height >= 720 else 6


def combs(frame: Any) -> float:
    """How much neighbouring lines of the brightness differ, in grey levels: near 0 where the chart has no detail."""
    plane = frame.reformat(format="gray").to_ndarray().astype(np.float64)
    return float(np.abs(2 * plane[1:-1] - plane[:-2] - plane[2:]).mean())
