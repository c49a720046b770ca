"""What a good video dream is, in numbers: it does not flicker, it is strong, it does not drift, a cut ends it.

Pictures are uint8 [H, W, 3] RGB. A residual is dream − frame of such pictures, so all is measured on what is shown.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, warp
from streamdream.media.opencv import cv2

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.models import Model

Picture = NDArray[np.uint8]
Residual = NDArray[np.float32]
"""[H, W, 3] in grey levels, -255..255."""

TRUSTED = 0.5
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Rows Y, Cb, Cr from R, G, B: ITU-R BT.601, full range."""


@dataclass(frozen=True)
class Motion:
    """How one frame came from the one before, by a flow that no dream here is carried by, so that none is favoured."""

    flow: optical_flow.Flow
    trusted: NDArray[np.bool_]
    """[H, W]"""

    @classmethod
    def between(cls, current: Picture, previous: Picture) -> Motion:
        """Farneback's flow, believed where it agrees with the flow back."""
        now, before, estimate = optical_flow.grey(current), optical_flow.grey(previous), optical_flow.get("farneback")
        motion = estimate(now, before)
        return cls(motion, warp.trust("forward-backward", now, before, motion, estimate) > TRUSTED)

    @classmethod
    def of(cls, frames: Sequence[Picture]) -> list[Motion]:
        """One for every frame but the first."""
        return [cls.between(current, previous) for previous, current in pairwise(frames)]


def residual(dream: Picture, frame: Picture) -> Residual:
    result: Residual = dream.astype(np.float32) - frame.astype(np.float32)
    return result


def flicker(dreams: Sequence[Picture], frames: Sequence[Picture], motions: Sequence[Motion], first: int) -> float:
    """How much of the residual is not what it was: mean over the frames from ``first`` on (at least 1) of
    mean |R_t − warp(R_{t−1})| ÷ mean |R_t| over the trusted pixels.

    0 is a dream painted onto the scene; independent noise gives about 1.4.
    """
    found = []
    before = residual(dreams[first - 1], frames[first - 1])
    for index in range(first, len(frames)):
        now, motion = residual(dreams[index], frames[index]), motions[index - 1]
        change = np.abs(now - warp.warp(before, motion.flow))[motion.trusted]
        size = np.abs(now)[motion.trusted]
        if size.any():
            found.append(float(change.mean() / size.mean()))
        before = now
    return float(np.mean(found)) if found else 0.0


class ObjectiveValue:
    """The value of the objective for a picture, in float32 on the field: what the dream is meant to raise."""

    def __init__(self, model: Model, objective: Objective, field: tuple[int, int]) -> None:
        import torch

        from streamdream.models.network import Network

        self._model, self._objective, self._field = model, objective, field
        network = Network(model.nodes(), model.load_weights(), objective.taps, torch.device("cpu"), torch.float32)
        self._network = network

    def __call__(self, picture: Picture) -> float:
        import torch

        from streamdream.media.frame import to_signed_unit, to_tensor

        height, width = self._field
        if picture.shape[:2] != self._field:
            picture = cv2().resize(picture, (width, height), interpolation=cv2().INTER_AREA)
        with torch.no_grad():
            features = self._network(self._model.to_input(to_tensor(to_signed_unit(picture))))
            return sum(weight * float(term.value(features, ())) for term, weight in self._objective.terms)


def gain(dreams: Sequence[Picture], frame_values: Sequence[float], excitement: ObjectiveValue, first: int) -> float:
    """Mean over the frames from ``first`` on of the objective's value for the dream ÷ its value for the frame."""
    ratios = [excitement(dreams[index]) / frame_values[index] for index in range(first, len(dreams))]
    return float(np.mean(ratios))


@dataclass(frozen=True)
class Drift:
    """How far the colour of a still picture's dream has moved from early to late; shares of the mean |R| late."""

    luma: float
    chroma: float
    noise: float
    """Standard deviation of what is compared over all windows in between; the dream wanders even where it does not
    drift, so one run's value means little below twice this."""

    @property
    def largest(self) -> float:
        return max(self.luma, self.chroma)

    @classmethod
    def of(cls, residuals: Iterable[Residual], begin: int, window: int) -> Drift:
        """Change of the mean Y, and the larger one of Cb and Cr, from the ``window`` frames around ``begin`` to the
        last ones.
        """
        pairs = [(YCBCR @ part.mean((0, 1)), float(np.abs(part).mean())) for part in residuals]
        colors = np.array([color for color, _ in pairs])  # [frames, 3]
        size = float(np.mean([size for _, size in pairs[-window:]])) or 1.0
        first = max(0, begin - window // 2)
        luma, blue, red = np.abs(colors[-window:].mean(0) - colors[first:first + window].mean(0)) / size
        windows = colors[len(colors) - (len(colors) - first) // window * window:].reshape(-1, window, 3).mean(1)
        return cls(float(luma), float(max(blue, red)), float(np.max(windows.std(0))) / size)


def correlation(a: Residual, b: Residual, where: NDArray[np.bool_] | None = None) -> float:
    """Of two residuals, -1..1, over the pixels ``where``; 0 when one of them is flat or
    there are none."""
    left, right = (part[where].ravel() if where is not None else part.ravel() for part in (a, b))
    if not left.size:
        return 0.0
    left, right = left - left.mean(), right - right.mean()
    size = float(np.sqrt(np.sum(left * left) * np.sum(right * right)))
    return float(np.sum(left * right)) / size if size else 0.0


def warped_correlation(now: Residual, before: Residual, motion: Motion) -> float:
    """Correlation of a residual with the one before it, moved along the picture, over the trusted pixels."""
    return correlation(now, warp.warp(before, motion.flow), motion.trusted)
