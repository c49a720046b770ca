"""Generated HDR pictures, and clips of them as 10-bit HEVC."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamdream.media.color_matrix import component_matrix
from streamdream.media.hdr_metadata import HdrMetadata
from streamdream.media.planes import component_views

PQ, HLG = 16, 18
METADATA = HdrMetadata(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329)), (1000.0, 0.005), (980, 310))


def hdr_picture(signal: NDArray[Any], trc: int, pixel_format: str = "yuv420p10le", color_range: int = 1) -> Any:
    """R'G'B' [H, W, 3] 0..1 of BT.2020 -> a tagged picture."""
    picture: Any = av.VideoFrame(signal.shape[1], signal.shape[0], pixel_format)
    bits = picture.format.components[0].bits
    black = 0 if color_range == 2 else 16 << bits - 8
    values = signal @ component_matrix(False, 9, color_range, bits).T.astype(float) + [black, *[1 << bits - 1] * 2]
    for view, component in zip(component_views(picture), np.moveaxis(values, 2, 0), strict=False):
        view[:] = np.rint(cv2.resize(component, view.shape[::-1], interpolation=cv2.INTER_AREA))
    picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range = 9, 9, trc, color_range
    picture.time_base, picture.pts = Fraction(1, 25), 3
    return picture


def scene(trc: int, height: int = 270, width: int = 480) -> NDArray[Any]:
    """A landscape with lamps of the highest signals: smooth, textured and saturated parts."""
    y, x = np.mgrid[0:height, 0:width]
    level = 0.52 if trc == PQ else 0.6
    image = np.dstack([0.55 + 0.4 * np.sin(x / 90 + phase) * np.cos(y / 70 - phase) for phase in (0, 0.6, 1.3)])
    image = level * image + 0.02 * np.random.default_rng(1).standard_normal((height, width, 1))
    image[200:260, 20:80] = level * np.array([0.9, 0.35, 0.3])  # a flower
    image[20:60, 380:420] = 0.9
    image[100:108, 100:108] = 1.0
    return np.clip(image, 0, 1)


def write_clip(path: Path, pictures: list[Any], parameters: str = "", trc: int = PQ) -> str:
    """10-bit HEVC with the tags of BT.2100; x265 gives the last B-frames of few pictures undefined times."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, trc, 1
        stream.options = {"preset": "ultrafast", "crf": "4", "x265-params": f"log-level=none:bframes=0:{parameters}"}
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return str(path)
