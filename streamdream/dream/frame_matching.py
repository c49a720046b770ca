"""Match a frame to the previous one: flow, trust and scene cut. Needs no dream, so it can be computed in advance."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, warp
from streamdream.dream import trust as trust_methods
from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area

if TYPE_CHECKING:
    from streamdream.dream.options import DreamOptions
    from streamdream.settings import DreamSettings

FLAT_VARIANCE = 9.0
"""Of a picture of one colour with noise: a standard deviation of three grey levels."""
SAME_EXPOSURE = 6.0
"""Difference in mean and in contrast, in grey levels, up to which two frames are compared as they are."""
CLIPPED_BELOW, CLIPPED_ABOVE = 4, 250
"""Grey levels that a sensor no longer tells apart."""
MOTION_GRID = 3, 4
"""Rows and columns of cells, between whose mean flows is interpolated to compare two frames."""
FLASH_SHARE = 0.2
"""Of a frame: by so much more is clipped in a flash."""


@dataclass(frozen=True)
class FrameMatch:
    """The match of ``image`` [H, W, 3] to the grey frame ``previous``, for the settings ``key`` (see ``match_key``)."""

    image: NDArray[np.uint8]
    field: NDArray[np.uint8]
    """[h, w, 3]: the frame scaled to the field."""
    grey: optical_flow.Grey
    """[h, w]: ``field`` in grey."""
    previous: optical_flow.Grey | None
    key: tuple[object, ...]
    motion: optical_flow.Flow | None = None
    trust: warp.Plane | None = None
    """[h, w] in 0..1; None where nothing is carried: at the start, after a cut or a new size."""
    cut: bool = False
    blank: bool = False
    """Nothing can be seen in this frame (black, white), but in the one before: it is carried over unmoved."""
    clipped: bool = False
    """Much of this frame is too bright or too dark to hold a dream that the next frame can show again."""

    @property
    def reference(self) -> optical_flow.Grey:
        """[h, w]: what the next frame is matched to. A blank frame is passed over, so that a flash is no cut."""
        return self.previous if self.blank and self.previous is not None else self.grey


def match_key(settings: DreamSettings) -> tuple[object, ...]:
    """Return the values of the settings that a match depends on."""
    return settings.flow, settings.cut, settings.trust


def match_image(image: NDArray[np.uint8], previous: optical_flow.Grey | None, settings: DreamSettings,
                options: DreamOptions) -> FrameMatch:
    """Match ``image`` [H, W, 3] on the field of ``options`` to the grey ``previous``. Raises UnknownName."""
    with options.stats.stage("match"):
        height, width = options.field_size(*image.shape[:2])
        field = image if (height, width) == image.shape[:2] else downscale_area(image, height, width)
        return match_frame(image, field, previous, settings)


def match_frame(
    image: NDArray[np.uint8], field: NDArray[np.uint8], previous: optical_flow.Grey | None, settings: DreamSettings
) -> FrameMatch:
    """Match ``image``, and ``field``, its copy scaled to the field, to the grey ``previous``. Raises UnknownName."""
    return rematch(FrameMatch(image, field, optical_flow.grey(field), None, ()), previous, settings)


def rematch(match: FrameMatch, previous: optical_flow.Grey | None, settings: DreamSettings) -> FrameMatch:
    """Match the same frame to another previous frame, or with other settings. Raises UnknownName."""
    grey = match.grey
    found = replace(match, previous=previous, key=match_key(settings), motion=None, trust=None, cut=False,
                    blank=False, clipped=False)
    if previous is None or previous.shape != grey.shape:
        return found
    was_blank = is_blank(previous)
    if is_blank(grey) and not was_blank:
        still, everywhere = np.zeros((*grey.shape, 2), np.float32), np.ones(grey.shape, np.float32)
        return replace(found, motion=still, trust=everywhere, blank=True, clipped=True)
    current, before = (grey, previous) if was_blank else equalize_exposure(grey, previous)
    estimate = optical_flow.get(settings.flow)
    motion = estimate(current, before)
    if settings.cut > 0 and frame_similarity(current, before, motion) < settings.cut:
        return replace(found, motion=motion, cut=True)
    trust = trust_methods.trust(settings.trust, current, before, motion, estimate)
    return replace(found, motion=motion, trust=trust, clipped=_is_flash(grey, previous))


def is_blank(grey: optical_flow.Grey) -> bool:
    """Return whether a frame shows nothing but noise, at a quarter of its size."""
    return float(downscale_4x(grey).var()) < FLAT_VARIANCE


def equalize_exposure(current: optical_flow.Grey, previous: optical_flow.Grey
                      ) -> tuple[optical_flow.Grey, optical_flow.Grey]:
    """Give two frames of different exposure the same tones, so that a fade or a flash is not taken for motion.

    The one with more contrast gets the histogram of the other (histogram specification, Gonzalez and Woods), which
    also clips it where that one is clipped. Frames of nearly the same mean and contrast are returned as they are.
    """
    (mean, deviation), (mean_before, deviation_before) = (
        [float(value[0, 0]) for value in cv2().meanStdDev(grey)] for grey in (current, previous)
    )
    if max(abs(mean - mean_before), abs(deviation - deviation_before)) < SAME_EXPOSURE:
        return current, previous
    if deviation > deviation_before:
        return _with_tones_of(current, previous), previous
    return current, _with_tones_of(previous, current)


def _with_tones_of(grey: optical_flow.Grey, other: optical_flow.Grey) -> optical_flow.Grey:
    """Return ``grey`` with the histogram of ``other``: the monotone curve that maps one distribution to the other."""
    counts, other_counts = (np.cumsum(np.bincount(plane.ravel(), minlength=256)) for plane in (grey, other))
    curve = np.searchsorted(other_counts, counts)  # the darkest tone up to which ``other`` has as many pixels
    result: optical_flow.Grey = cv2().LUT(grey, curve.astype(np.uint8))
    return result


def _is_flash(grey: optical_flow.Grey, previous: optical_flow.Grey) -> bool:
    """Return whether much more of a frame is clipped than of the one before."""
    return _clipped_share(grey) > _clipped_share(previous) + FLASH_SHARE


def _clipped_share(grey: optical_flow.Grey) -> float:
    return float(np.count_nonzero((grey < CLIPPED_BELOW) | (grey > CLIPPED_ABOVE))) / grey.size


def frame_similarity(current: optical_flow.Grey, previous: optical_flow.Grey, flow: optical_flow.Flow) -> float:
    """Return the correlation, -1..1, of the current frame and the warped previous one.

    It is near 1 within a shot, also under motion and changes of brightness, and 1 for two flat pictures. Frames are
    compared at a quarter of their size: otherwise only noise would be compared before a plain wall, and every frame
    would count as a cut. Of the flow, what is common to the cells of MOTION_GRID counts: a dense one can make any frame
    look like any other. Figures: docs/notebook/2026-11-28-cuts-and-dense-flow.md.
    """
    small, small_previous = downscale_4x(current), downscale_4x(previous)
    scale = np.array([small.shape[1] / flow.shape[1], small.shape[0] / flow.shape[0]], np.float32)
    cells = motion_cells(*flow.shape[:2])
    common = cv2().resize(flow, cells[::-1], interpolation=cv2().INTER_AREA) * scale
    small_flow = cv2().resize(common, small.shape[::-1], interpolation=cv2().INTER_LINEAR)
    warped = warp.warp(small_previous, small_flow)
    a, b = small - small.mean(), warped - warped.mean()
    variance_a, variance_b = float(np.mean(a * a)), float(np.mean(b * b))
    if max(variance_a, variance_b) < FLAT_VARIANCE:
        return 1.0
    return float(np.mean(a * b)) / float(np.sqrt(max(variance_a, FLAT_VARIANCE) * max(variance_b, FLAT_VARIANCE)))


def motion_cells(height: int, width: int) -> tuple[int, int]:
    """Return the cells (rows, columns) of MOTION_GRID that a field of this size has."""
    return min(MOTION_GRID[0], height), min(MOTION_GRID[1], width)


def downscale_4x(grey: optical_flow.Grey) -> warp.Plane:
    size = max(1, grey.shape[1] // 4), max(1, grey.shape[0] // 4)
    small: warp.Plane = cv2().resize(grey.astype(np.float32), size, interpolation=cv2().INTER_AREA)
    return small
