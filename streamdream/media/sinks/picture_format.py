"""In which samples the pictures of a sequence are stored: 8 or 16 bits, with or without alpha."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import UnknownName
from streamdream.media.frame import Picture
from streamdream.media.input_container import ColorTags
from streamdream.media.sinks.picture_converter import converter
from streamdream.media.sinks.pixel_formats import bits, has_alpha, has_hdr
from streamdream.media.sinks.video_encoder import to_video_frame

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source
    from streamdream.settings import RenderSettings

BGR = {"rgb24": "bgr24", "rgba": "bgra", "rgb48": "bgr48le", "rgba64": "bgra64le"}
"""``--pix-fmt`` -> the same in the order of OpenCV, which encodes it."""
ALL = tuple(BGR)
FORMATS = {".png": ALL, ".tif": ALL, ".tiff": ALL, ".webp": ("rgb24", "rgba")}
"""Of pictures with that suffix; all others have no alpha and 8 bits."""
RGB = ColorTags(1, 1, 1, 2)


@dataclass(frozen=True)
class PictureFormat:
    """Makes of each picture the array [H, W, 3 or 4], uint8 or uint16, that ``encode_image`` takes: BGR or BGRA."""

    pixels: str
    convert: Callable[[Any], Any]
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str, source: Source, settings: RenderSettings) -> PictureFormat:
        """For pictures of ``source``: they keep alpha and more than 8 bits where the files can hold them.

        Raises UnknownName for a ``--pix-fmt`` that they cannot.
        """
        suffix, wanted = Path(path).suffix.lower(), settings.pixel_format
        legal, warnings = FORMATS.get(suffix, ("rgb24",)), []
        is_hdr, alpha = has_hdr(source), has_alpha(source.pixel_format)
        if wanted == "auto":
            deep = bits(source.pixel_format) > 8 and not is_hdr
            name = "rgba" if alpha else "rgb24"
            deeper = {"rgba": "rgba64", "rgb24": "rgb48"}[name]
            pixels = next((name for name in (deeper if deep else name, name, "rgb24") if name in legal), "rgb24")
        else:
            pixels = wanted.removesuffix("le").removesuffix("be")
            if pixels not in legal:
                raise UnknownName(f"pixel format of {suffix} pictures", wanted, legal)
        if is_hdr:
            warnings.append(f"the HDR input is mapped to SDR (BT.709): {suffix} pictures hold no HDR")
        alpha_lost = ""
        if alpha and not has_alpha(BGR[pixels]):
            alpha_lost = (f"{suffix} pictures hold no transparency: it becomes black; .png, .tiff and .webp keep it"
                          if "rgba" not in legal else f"--pix-fmt {wanted} has no transparency: it becomes black")
        if source.transparent and alpha_lost:
            warnings.append(alpha_lost)
        return cls(pixels, converter(BGR[pixels], RGB, source.color, is_hdr, "" if source.transparent else alpha_lost),
                   tuple(warnings))

    def __call__(self, picture: Picture) -> NDArray[Any]:
        if isinstance(picture, np.ndarray) and self.pixels == "rgb24":
            return picture[..., ::-1].copy()
        result: NDArray[Any] = self.convert(to_video_frame(picture)).to_ndarray()
        return result
