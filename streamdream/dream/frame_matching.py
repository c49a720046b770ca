"""How a frame matches the one before it: all of carrying that needs no dream, so that it can be known beforehand."""
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
    """Of the frame ``image`` [H, W, 3] with the frame ``previous``, by the settings ``by`` (see ``named_in``)."""

    image: NDArray[np.uint8]
    field: NDArray[np.uint8]
    """[h, w, 3]: the frame on the field."""
    grey: optical_flow.Grey
    """[h, w] of it."""
    previous: optical_flow.Grey | None
    key: tuple[object, ...]
    motion: optical_flow.Flow | None = None
    trust: warp.Plane | None = None
    """[h, w] in 0..1; None where nothing is carried: at the start, after a cut, and when the size changed."""
    cut: bool = False


def match_key(settings: DreamSettings) -> tuple[object, ...]:
    """The settings that a match depends on."""
    return settings.flow, settings.cut, settings.trust, settings.stillness


def match_frame(
    image: NDArray[np.uint8], field: NDArray[np.uint8], previous: optical_flow.Grey | None, settings: DreamSettings
) -> FrameMatch:
    """``field`` is ``image`` on the field; ``previous`` grey, on a field, or None. Raises UnknownName."""
    return rematch(FrameMatch(image, field, optical_flow.grey(field), None, ()), previous, settings)


def rematch(found: FrameMatch, previous: optical_flow.Grey | None, settings: DreamSettings) -> FrameMatch:
    """The same frame with another one before it, or by other settings."""
    image, field, grey, by = found.image, found.field, found.grey, match_key(settings)
    if previous is None or previous.shape != grey.shape:
        return FrameMatch(image, field, grey, previous, by)
    estimate = optical_flow.get(settings.flow)
    motion = estimate(grey, previous)
    if settings.cut > 0 and warp.frame_similarity(grey, previous, motion) < settings.cut:
        return FrameMatch(image, field, grey, previous, by, motion, cut=True)
    trust = warp.trust(settings.trust, grey, previous, motion, estimate)
    if settings.stillness:
        trust = trust * warp.stillness_mask(motion, settings.stillness)
    return FrameMatch(image, field, grey, previous, by, motion, trust)


