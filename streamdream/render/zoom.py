"""An endless zoom from one picture: each dream, moved a little, is the next frame (Mordvintsev et al. 2015, cell 19).

    picture ──▶ dream ──▶ sink
       ▲          │
       └── move ──┘  zoom, rotate, shift
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SettingsError
from streamdream.media.frame import Frame
from streamdream.media.hardware_decoding import SOFTWARE
from streamdream.media.input_container import assumed_color
from streamdream.media.opencv import cv2
from streamdream.render.report import RenderReport, summarize

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.media.sinks.base import Sink
    from streamdream.settings import DreamSettings, ZoomSettings

Picture = NDArray[np.uint8]


class StillSource:
    """One picture as a source: what a sink must know of the frames to come."""

    pixel_aspect = Fraction(1)
    pixel_format = "rgb24"
    constant_rate, transparent, hdr_metadata = False, False, None
    decoder, decoder_reason = SOFTWARE, ""
    last_duration = Fraction(0)

    def __init__(self, name: str, image: Picture, fps: float, seconds: float) -> None:
        self.name, self.image = name, image
        self.height, self.width = image.shape[:2]
        self.rate = Fraction(fps).limit_denominator(1001)
        self.time_base = 1 / self.rate
        self.frame_count = max(1, round(seconds * self.rate))
        self.color = assumed_color(self.height)
        self.warnings: list[str] = []

    def frame(self, image: Picture, index: int) -> Frame:
        """``image`` as the frame of that number."""
        unit = self.time_base.numerator, self.time_base.denominator
        return Frame(image, float(index * self.time_base), index, unit)

    def __iter__(self) -> Iterator[Frame]:
        yield self.frame(self.image, 0)

    def close(self) -> None:
        pass

    def __enter__(self) -> StillSource:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def zoom(source: StillSource, sink: Sink, dreamer: Dreamer, settings: DreamSettings, moves: ZoomSettings,
         on_frame: Callable[[int], None] = lambda count: None) -> RenderReport:
    """Dream ``source.frame_count`` frames into the sink and finish it. The caller owns the sink."""
    from streamdream.dream.dreamer import DreamState

    move, image, stats = ZoomTransform(moves), source.image, dreamer.options.stats
    for index in range(source.frame_count):
        # nothing is carried: the whole dream is in the picture
        _, dream = dreamer(
            DreamState(index=index), image, settings if index == 0 else replace(settings, warmup_steps=0)
        )
        with stats.stage("encode_wait"):
            sink.write(dream, source.frame(dream, index))
        with stats.stage("move"):
            image = move(dream)
        on_frame(index + 1)
    with stats.stage("finish"):
        sink.finish()
    return summarize(dreamer, dreamer.options, settings, (source.height, source.width), source.frame_count,
                     sink.warnings)


class ZoomTransform:
    """Zoom, rotation and shift of one frame; what comes in from outside is mirrored."""

    def __init__(self, settings: ZoomSettings) -> None:
        self._settings = settings
        self._shift = parse_shift(settings.shift)

    def __call__(self, image: Picture) -> Picture:
        height, width = image.shape[:2]
        center = (width - 1) / 2, (height - 1) / 2
        matrix = cv2().getRotationMatrix2D(center, self._settings.rotate, self._settings.zoom)
        matrix[:, 2] += self._shift
        moved: Picture = cv2().warpAffine(image, matrix, (width, height), flags=cv2().INTER_CUBIC,
                                          borderMode=cv2().BORDER_REFLECT_101)
        return moved


def parse_shift(text: str) -> tuple[float, float]:
    """``2,-1`` -> (2.0, -1.0). Raises SettingsError."""
    try:
        right, down = (float(part) for part in text.split(","))
        if not abs(right) + abs(down) < 10_000:
            raise ValueError
    except ValueError:
        raise SettingsError(f"--shift is {text!r}, but must be pixels right and down, as in '2,-1'") from None
    return right, down
