"""Match a frame to the previous one: flow, trust and scene cut. Needs no dream, so it can be computed in advance."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, warp

if TYPE_CHECKING:
    from streamdream.settings import DreamSettings


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


def match_key(settings: DreamSettings) -> tuple[object, ...]:
    """Return the values of the settings that a match depends on."""
    return settings.flow, settings.cut, settings.trust, settings.stillness


def match_frame(
    image: NDArray[np.uint8], field: NDArray[np.uint8], previous: optical_flow.Grey | None, settings: DreamSettings
) -> FrameMatch:
    """Match ``image``, and ``field``, its copy scaled to the field, to the grey ``previous``. Raises UnknownName."""
    return rematch(FrameMatch(image, field, optical_flow.grey(field), None, ()), previous, settings)


def rematch(match: FrameMatch, previous: optical_flow.Grey | None, settings: DreamSettings) -> FrameMatch:
    """Match the same frame to another previous frame, or with other settings. Raises UnknownName."""
    image, field, grey, key = match.image, match.field, match.grey, match_key(settings)
    if previous is None or previous.shape != grey.shape:
        return FrameMatch(image, field, grey, previous, key)
    estimate = optical_flow.get(settings.flow)
    motion = estimate(grey, previous)
    if settings.cut > 0 and warp.frame_similarity(grey, previous, motion) < settings.cut:
        return FrameMatch(image, field, grey, previous, key, motion, cut=True)
    trust = warp.trust(settings.trust, grey, previous, motion, estimate)
    if settings.stillness:
        trust = trust * warp.stillness_mask(motion, settings.stillness)
    return FrameMatch(image, field, grey, previous, key, motion, trust)
