"""What a picture says of itself that no output keeps."""
from __future__ import annotations

from typing import Any

from streamdream.media.hdr_metadata import dynamic_metadata
from streamdream.media.pyav import side_data

PROJECTIONS = {0: "a 360° video", 1: "a 360° video (cube map)", 2: "a part of a 360° video", 3: "half a 360° video",
               4: "a flat video for headsets", 5: "a fisheye video"}
"""AVSphericalProjection -> what people call it."""


def losses(picture: Any) -> list[str]:
    """What a warning says after the name of the input. ``picture`` is its first one, as decoded."""
    found = []
    if spherical := side_data(picture, "SPHERICAL"):
        kind = PROJECTIONS.get(int.from_bytes(spherical[:4], "little"), "a 360° video")
        found.append(f"is {kind}: the output does not say so, and players show it flat")
    if int.from_bytes((side_data(picture, "STEREO3D") or b"")[:4], "little"):
        found.append("holds a picture for each eye: the output does not say so, and players show both")
    if left_out := dynamic_metadata(picture):
        found.append(f"has {' and '.join(left_out)} metadata, which fit only the undreamed pictures: left out")
    return found
