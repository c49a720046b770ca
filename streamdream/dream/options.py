"""How a frame is dreamed, beside the settings of what is dreamed."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamdream.system.stats import Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DreamOptions:
    """Comes with each call of a ``Dreamer``, which keeps none of it."""

    field_height: int = 0
    """Lines at which the dream is computed; 0, or more than the frame has, means the frame's own."""
    cycle_octaves: bool = False
    """Step on one octave a frame, the next one with the next frame: a live dream is renewed more often."""
    on_step: Callable[[int], None] | None = None
    """Called after each step with the number of steps done on this frame."""
    on_picture: Callable[[Tensor], None] | None = None
    """Called after each step with the picture [1, 3, h, w] in [-1, 1], at the size of its octave."""
    stats: Stats = field(default_factory=Stats)
    """Gets the time of each stage."""

    def field_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which a frame of that size is dreamed; the width is even, so that octaves line up."""
        if not 0 < self.field_height < height:
            return height, width
        return self.field_height, max(2, 2 * round(width * self.field_height / height / 2))
