"""Static HDR metadata: the mastering display (SMPTE ST 2086) and the content light level (CTA-861.3).

FFmpeg's decoders attach both to pictures, whether they were in the video stream or in its container.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from streamdream.media.pyav import side_data

DYNAMIC = {"DYNAMIC_HDR_PLUS": "HDR10+", "DOVI_RPU_BUFFER": "Dolby Vision", "DOVI_METADATA": "Dolby Vision",
           "DYNAMIC_HDR_VIVID": "HDR Vivid"}
"""Side data that describes single scenes of the undreamed pictures -> what its users call it."""
CHROMATICITY_UNIT, LUMINANCE_UNIT = 50_000, 10_000
"""The units of ST 2086 in video streams: 1/50000, and 1/10000 cd/m²."""


@dataclass(frozen=True)
class HdrMetadata:
    """What holds for the whole video; None where the source does not say it."""

    primaries: tuple[tuple[float, float], ...] | None = None
    """CIE 1931 x, y of red, green, blue and white of the mastering display."""
    luminance: tuple[float, float] | None = None
    """Its maximum and minimum, in cd/m²."""
    content_light: tuple[int, int] | None = None
    """MaxCLL and MaxFALL, in cd/m²."""

    def x265_params(self) -> str:
        """For libx265's ``x265-params``."""
        parts = ["hdr10=1"]
        if self.primaries and self.luminance:
            red, green, blue, white = (f"({round(x * CHROMATICITY_UNIT)},{round(y * CHROMATICITY_UNIT)})"
                                       for x, y in self.primaries)
            high, low = (round(value * LUMINANCE_UNIT) for value in self.luminance)
            parts.append(f"master-display=G{green}B{blue}R{red}WP{white}L({high},{low})")
        if self.content_light:
            parts.append("max-cll={},{}".format(*self.content_light))
        return ":".join(parts)

    def svtav1_params(self) -> str:
        """For libsvtav1's ``svtav1-params``."""
        parts = []
        if self.primaries and self.luminance:
            red, green, blue, white = (f"({x:.5f},{y:.5f})" for x, y in self.primaries)
            high, low = self.luminance
            parts.append(f"mastering-display=G{green}B{blue}R{red}WP{white}L({high:.4f},{low:.4f})")
        if self.content_light:
            parts.append("content-light={},{}".format(*self.content_light))
        return ":".join(parts)


def static_metadata(picture: Any) -> HdrMetadata | None:
    """Of a decoded PyAV frame; None where it has none."""
    display = side_data(picture, "MASTERING_DISPLAY_METADATA")
    light = side_data(picture, "CONTENT_LIGHT_LEVEL")
    primaries = luminance = content_light = None
    if display and len(display) >= 88:  # AVMasteringDisplayMetadata: ten fractions, then which of them are set
        numbers = struct.unpack("=22i", display[:88])
        values = [top / (bottom or 1) for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if numbers[20]:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        if numbers[21]:
            luminance = values[9], values[8]
    if light and len(light) >= 8:
        content_light = struct.unpack("=II", light[:8])
    if primaries is None and luminance is None and not any(content_light or ()):
        return None
    return HdrMetadata(primaries, luminance, content_light)


def dynamic_metadata(picture: Any) -> list[str]:
    """Names of the dynamic HDR metadata of a decoded PyAV frame, which no encoder here can write."""
    return sorted({name for kind, name in DYNAMIC.items() if side_data(picture, kind) is not None})
