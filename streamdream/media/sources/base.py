"""Common parts of all live sources: a clock, and frames that carry their arrival time."""
from __future__ import annotations

from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamdream.media.frame import Frame
from streamdream.media.hardware_decoding import SOFTWARE
from streamdream.media.input_container import ColorTags

TICK = Fraction(1, 90_000)
"""Time base of live frames, in seconds: that of MPEG, fine enough for any rate."""
REPEAT_SECONDS = 0.1
"""A source without a new picture repeats its last one at this interval, so that its consumer never blocks."""


class LiveSource:
    """The common parts of live sources, which add ``__iter__``; see ``sources.video.Source``."""

    width: int
    height: int
    rate: Fraction
    frame_count = 0
    time_base = TICK
    pixel_aspect = Fraction(1)
    last_duration = Fraction(0)
    color = ColorTags()
    pixel_format = "rgb24"
    constant_rate, transparent, hdr_metadata = False, False, None
    decoder_reason = ""
    start_seconds: float | None = None
    """Time 0 on ``time.perf_counter``; None when frame times are not arrival times."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.warnings: list[str] = []

    @property
    def decoder(self) -> str:
        return SOFTWARE

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def timestamped_frame(image: NDArray[np.uint8], seconds: float) -> Frame:
    """Make a frame of ``image`` [H, W, 3] at ``seconds``, rounded to a tick."""
    ticks = round(seconds / TICK)
    return Frame(image, float(ticks * TICK), ticks, (TICK.numerator, TICK.denominator))
