"""Other ways to dream a video, in our own code and with the same steps, so that only the idea is compared."""
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
"""Frames -> their dreams, one by one."""

BLEND = 0.5
MASK_THRESHOLD = 30
"""Grey levels; a warped pixel that differs by more is not used."""


def streamdream(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """As the program does it: the residual is carried."""
    state = DreamState()
    for frame in frames:
        state, dream = dreamer(state, frame, settings)
        yield dream


def independent(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """Every frame dreamed from scratch, with the steps that a first frame takes, each with random shifts of its own."""
    for index, frame in enumerate(frames):
        yield dreamer(DreamState(index=index), frame, settings)[1]


def blend(frames: Sequence[Picture], dreamer: Dreamer, settings: DreamSettings) -> Iterator[Picture]:
    """The whole dreamed picture is warped, mixed into the next frame and dreamed again.

    deepdream-video-pytorch (video_dream.py:134-139, optical_flow.py:72-88): ``guided = m·warp(dream) + (1 − m)·frame``,
    then ``b·frame + (1 − b)·guided`` is dreamed, b = 0.5. What differs here: the flow is the one that streamdream uses
    (theirs is RAFT, looked up in the wrong direction), look-ups are cubic, nothing passes through JPEG files, and a
    frame takes as many steps as one of streamdream's.
    """
    estimate, once = optical_flow.get(settings.flow), replace(settings, warmup_steps=0)
    dream, previous = None, None
    for index, frame in enumerate(frames):
        mixed = frame
        if dream is not None and previous is not None:
            motion = estimate(optical_flow.grey(frame), optical_flow.grey(previous))
            mask = blend_mask(frame, warp.warp(previous.astype(np.float32), motion))[..., None]
            guided = mask * warp.warp(dream.astype(np.float32), motion) + (1 - mask) * frame
            mixed = np.clip(np.rint(BLEND * frame + (1 - BLEND) * guided), 0, 255).astype(np.uint8)
        _, dream = dreamer(DreamState(index=index), mixed, once)
        previous = frame
        yield dream


def blend_mask(frame: Picture, warped: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where the warped previous frame [H, W, 3] looks like this one: float32 [H, W] in 0..1.

    grey(|frame − warped|) <= 30, opened by 0.003·√(HW) pixels (3 at least), blurred by 0.009·√(HW) (5 at least); both
    are sizes of kernels, made odd.
    """
    side = float(np.sqrt(frame.shape[0] * frame.shape[1]))
    opening, blur = (max(least, int(share * side)) // 2 * 2 + 1 for share, least in ((0.003, 3), (0.009, 5)))
    difference = optical_flow.grey(cv2().absdiff(frame, np.clip(np.rint(warped), 0, 255).astype(np.uint8)))
    same = (difference <= MASK_THRESHOLD).astype(np.float32)
    opened = cv2().morphologyEx(same, cv2().MORPH_OPEN, np.ones((opening, opening), np.uint8))
    mask: NDArray[np.float32] = cv2().GaussianBlur(opened, (blur, blur), 0)
    return mask


METHODS: dict[str, Method] = {"streamdream": streamdream, "alone": independent, "blend": blend}
