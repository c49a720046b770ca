"""Options of a run that are not settings of the dream: resolution, hooks, timing."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamdream.system.stats import Stats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

FRAME_PATHS = {
    "auto": "on a GPU where one dreams, else on the processor",
    "device": "on the device of the steps, as one function of tensors",
    "processor": "on the processor, but for the steps",
}
"""Where flow, warp and composition are computed."""
DEVICE_FLOWS = {"auto": "lucas-kanade", "lucas-kanade": "lucas-kanade", "none": "none"}
"""Flow of the settings -> the one that runs on the device; others run on the processor only."""


@dataclass(frozen=True)
class DreamOptions:
    """Options of a call of a ``Dreamer``."""

    field_height: int = 0
    """Lines of the field, the resolution of the dream; 0 for those of the frame, which are also the maximum."""
    cycle_octaves: bool = False
    """Dream one octave per frame, in turn, so that a live dream is updated more often."""
    on_step: Callable[[int], None] | None = None
    """Called after each step with the number of steps done on this frame; on a device after several, when they have
    been submitted."""
    on_picture: Callable[[Tensor], None] | None = None
    """Called after each step with the picture [1, 3, h, w] in [-1, 1], at the size of its octave."""
    cut_on_device: bool = False
    """On a device, do not wait to know whether a frame is a cut: it then takes longer steps in place of the warm-up
    steps. For live runs."""
    levels: bool = False
    """On a device, the picture of a dream is what is added to the frame: uint8 [2h, w, 3], see
    ``device_compose.residual_levels``. For pages, which add it themselves."""
    shown_residual: Callable[[int, NDArray[np.float32]], NDArray[np.float32]] | None = None
    """Gets the index of the frame and its residual [h, w, 3], and returns the one to show; the first is carried on."""
    stats: Stats = field(default_factory=Stats)
    """Collects the duration of each stage."""

    def field_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the field for a frame of that size. The width is even, for aligned octaves."""
        if not 0 < self.field_height < height:
            return height, width
        return self.field_height, max(2, 2 * round(width * self.field_height / height / 2))
