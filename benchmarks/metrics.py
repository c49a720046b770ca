"""Metrics of the quality of a video dream: flicker, gain, drift, and the correlation across a cut.

Pictures are uint8 [H, W, 3] RGB. A residual is dream − frame of such pictures, so the displayed result is measured.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import optical_flow, trust, warp
from streamdream.media.opencv import cv2

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.models import Model

Picture = NDArray[np.uint8]
Residual = NDArray[np.float32]
"""[H, W, 3] in grey levels, -255..255."""

MIN_TRUST = 0.5
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Rows Y, Cb, Cr from R, G, B: ITU-R BT.601, full range."""


@dataclass(frozen=True)
class Motion:
    """The motion between two frames, by a flow that no method carries its dream with, so that none has an advantage."""

    flow: optical_flow.Flow
    trusted: NDArray[np.bool_]
    """[H, W]"""

    @classmethod
    def between(cls, current: Picture, previous: Picture) -> Motion:
        """Return Farneback's flow, trusted where it agrees with the backward flow."""
        grey, previous_grey = optical_flow.grey(current), optical_flow.grey(previous)
        estimate = optical_flow.get("farneback")
        motion = estimate(grey, previous_grey)
        return cls(motion, trust.trust("forward-backward", grey, previous_grey, motion, estimate) > MIN_TRUST)

    @classmethod
    def of(cls, frames: Sequence[Picture]) -> list[Motion]:
        """Return the motion to every frame except the first."""
        return [cls.between(current, previous) for previous, current in pairwise(frames)]


def residual(dream: Picture, frame: Picture) -> Residual:
    result: Residual = dream.astype(np.float32) - frame.astype(np.float32)
    return result


def flicker(dreams: Sequence[Picture], frames: Sequence[Picture], motions: Sequence[Motion], first: int) -> float:
    """Return the relative change of the residual between frames: mean over the frames from ``first`` on (at least 1)
    of mean |R_t − warp(R_{t−1})| ÷ mean |R_t| over the trusted pixels.

    It is 0 for a dream that follows the motion exactly, and about 1.4 for independent noise.
    """
    ratios = []
    previous = residual(dreams[first - 1], frames[first - 1])
    for index in range(first, len(frames)):
        current, motion = residual(dreams[index], frames[index]), motions[index - 1]
        change = np.abs(current - warp.warp(previous, motion.flow))[motion.trusted]
        magnitude = np.abs(current)[motion.trusted]
        if magnitude.any():
            ratios.append(float(change.mean() / magnitude.mean()))
        previous = current
    return float(np.mean(ratios)) if ratios else 0.0


class ObjectiveValue:
    """Computes the value of the objective of a dream for a picture; in float32, at the field's size."""

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


def gain(dreams: Sequence[Picture], frame_values: Sequence[float], value_of: ObjectiveValue, first: int) -> float:
    """Return the mean over the frames from ``first`` on of the objective's value for the dream ÷ that for the frame."""
    ratios = [value_of(dreams[index]) / frame_values[index] for index in range(first, len(dreams))]
    return float(np.mean(ratios))


@dataclass(frozen=True)
class Drift:
    """Change of the mean colour of a still picture's dream from early to late frames, relative to the late mean |R|."""

    luma: float
    chroma: float
    noise: float
    """Standard deviation of the mean colours of all windows in between. The dream varies even without drift, so the
    drift of one run is significant only above twice this."""

    @property
    def largest(self) -> float:
        return max(self.luma, self.chroma)

    @classmethod
    def of(cls, residuals: Iterable[Residual], begin: int, window: int) -> Drift:
        """Compare the mean Y, Cb and Cr of the last ``window`` frames and those around ``begin``."""
        pairs = [(YCBCR @ item.mean((0, 1)), float(np.abs(item).mean())) for item in residuals]
        colors = np.array([color for color, _ in pairs])  # [frames, 3]
        magnitude = float(np.mean([magnitude for _, magnitude in pairs[-window:]])) or 1.0
        first = max(0, begin - window // 2)
        luma, blue, red = np.abs(colors[-window:].mean(0) - colors[first:first + window].mean(0)) / magnitude
        windows = colors[len(colors) - (len(colors) - first) // window * window:].reshape(-1, window, 3).mean(1)
        return cls(float(luma), float(max(blue, red)), float(np.max(windows.std(0))) / magnitude)


def correlation(a: Residual, b: Residual, where: NDArray[np.bool_] | None = None) -> float:
    """Return the correlation of two residuals, -1..1, over the pixels ``where``; 0 without pixels or variance."""
    left, right = (item[where].ravel() if where is not None else item.ravel() for item in (a, b))
    if not left.size:
        return 0.0
    left, right = left - left.mean(), right - right.mean()
    norm = float(np.sqrt(np.sum(left * left) * np.sum(right * right)))
    return float(np.sum(left * right)) / norm if norm else 0.0


def warped_correlation(current: Residual, previous: Residual, motion: Motion) -> float:
    """Return the correlation of a residual with the warped previous one, over the trusted pixels."""
    return correlation(current, warp.warp(previous, motion.flow), motion.trusted)
