"""Other methods to dream a video, implemented here with the same steps, so that only the methods are compared."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, warp
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.media.opencv import cv2

from .metrics import Picture

if TYPE_CHECKING:
    from streamdream.settings import DreamSettings

Method = Callable[[Sequence[Picture], Dreamer, "DreamSettings"], Iterator[Picture]]
"""Frames -> their dreams, one at a time."""

BLEND = 0.5
BLEND_STEPS = 4
"""Half of each dream is gone at the next frame: with one step, no step size gives the gain of a carried residual."""
MASK_THRESHOLD = 30
"""Grey levels; a warped pixel that differs by more is not used."""


def streamdream(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """Dream as the program does: carry the residual."""
    state = DreamState()
    for frame in frames:
        state, dream = dreamer(state, frame, settings)
        yield dream


def independent(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """Dream every frame independently, with the steps of a first frame and its own random shifts."""
    for index, frame in enumerate(frames):
        yield dreamer(DreamState(index=index), frame, settings)[1]


def blend(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """Warp the whole dreamed picture, mix it into the next frame and dream the result.

    deepdream-video-pytorch (video_dream.py:134-139, optical_flow.py:72-88): ``guided = m·warp(dream) + (1 − m)·frame``,
    then ``b·frame + (1 − b)·guided`` is dreamed, b = 0.5. Differences: the flow is that of streamdream (theirs is RAFT,
    sampled in the wrong direction), interpolation is cubic, no JPEG files are written in between. A frame takes
    BLEND_STEPS times the steps that it takes with streamdream.
    """
    estimate = optical_flow.get(settings.flow)
    settings = replace(settings, warmup_steps=0, steps=BLEND_STEPS * settings.steps)
    dream, previous = None, None
    for index, frame in enumerate(frames):
        mixed = frame
        if dream is not None and previous is not None:
            motion = estimate(optical_flow.grey(frame), optical_flow.grey(previous))
            mask = blend_mask(frame, warp.warp(previous.astype(np.float32), motion))[..., None]
            guided = mask * warp.warp(dream.astype(np.float32), motion) + (1 - mask) * frame
            mixed = np.clip(np.rint(BLEND * frame + (1 - BLEND) * guided), 0, 255).astype(np.uint8)
        _, dream = dreamer(DreamState(index=index), mixed, settings)
        previous = frame
        yield dream


def blend_mask(frame: Picture, warped: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where the warped previous frame [H, W, 3] looks like this one: float32 [H, W] in 0..1.

    grey(|frame − warped|) <= 30, opened with a kernel of 0.003·√(HW) pixels (at least 3), blurred with one of
    0.009·√(HW) (at least 5); both sizes are made odd.
    """
    side = float(np.sqrt(frame.shape[0] * frame.shape[1]))
    opening, blur = (max(minimum, int(fraction * side)) // 2 * 2 + 1 for fraction, minimum in ((0.003, 3), (0.009, 5)))
    difference = optical_flow.grey(cv2().absdiff(frame, np.clip(np.rint(warped), 0, 255).astype(np.uint8)))
    same = (difference <= MASK_THRESHOLD).astype(np.float32)
    opened = cv2().morphologyEx(same, cv2().MORPH_OPEN, np.ones((opening, opening), np.uint8))
    mask: NDArray[np.float32] = cv2().GaussianBlur(opened, (blur, blur), 0)
    return mask


def undamped(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """Carry the whole residual along the flow, with no test of the flow or for cuts, and hardly damped.

    As DeepDreamAnim carries it; the 0.999 is the largest ``keep``, and loses 2 % in 24 frames.
    """
    return streamdream(frames, dreamer, replace(settings, keep=0.999, trust="full", cut=0))


METHODS: dict[str, Method] = {"streamdream": streamdream, "alone": independent, "blend": blend, "undamped": undamped}
WITHOUT_MEMORY = (independent,)
"""Methods whose dream of a frame does not depend on other frames."""
