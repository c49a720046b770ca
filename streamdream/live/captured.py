"""A frame on its way through a live run."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamdream.media.frame import Frame


@dataclass(frozen=True)
class Captured:
    """A frame, its number in this run, from 1 on, and the time of its capture, by ``time.perf_counter``."""

    frame: Frame
    number: int
    at_seconds: float
    shown: NDArray[np.uint8] | None = None
    """What to show: the dream of this very frame; None to make it of the newest residual."""
