"""Longer steps where the carried dream is young: after a moving camera, a cut or a change of look has cleared it.

Where trust is low, the residual is cleared, and steps of the usual length take seconds to restore it. So a *maturity*
is carried beside the residual, along the same flow, with the same trust and ``keep``: what steps of the usual length
have added up to there, as a fraction of ``step / (1 - keep)``, which they would reach in the end. Adam corrects its
running means, which begin at zero, by the same fraction (Kingma, Ba 2015, arXiv:1412.6980, section 3); SVGF carries the
length of each pixel's history to the same end (Schied et al. 2017). A flat sky, which has little to dream, is mature
too, and not dreamed harder than before.

Where nothing is cleared the gain is 1 everywhere, and the dream is as without this file, bit for bit.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.ascent.step import clamp_
from streamdream.dream.warp import Plane, sample_coordinates
from streamdream.media.opencv import cv2

if TYPE_CHECKING:
    from streamdream.dream.optical_flow import Flow
    from streamdream.settings import DreamSettings

MATURE = 0.7
"""Maturity from which on steps have their usual length. Residuals are stronger than it says, as they cannot grow
without bounds: those of 12 dreams, a maturity of 0.31, have half the strength of those of 60; figures:
docs/notebook/2026-11-28-moving-camera.md."""
LONGEST_STEP = 0.045
"""Length to which a gain may bring a step: longer ones make confetti before shapes (looked at, 0.06)."""


def carry(maturity: Plane | None, motion: Flow, trust: Plane, keep: float) -> Plane:
    """Warp the maturity [h, w] of the previous frame as its residual is: ``warp(maturity, flow) * trust * keep``.

    None, of a state that has a residual only, is mature everywhere.
    """
    if maturity is None:
        return np.float32(keep) * trust
    cv = cv2()
    warped = cv.remap(maturity, sample_coordinates(motion), None, cv.INTER_LINEAR,
                      borderMode=cv.BORDER_REPLICATE)
    result: Plane = cv.multiply(warped, trust, scale=keep)
    return result


def of(carried: Plane | None, settings: DreamSettings) -> Plane | None:
    """Return the factor [h, w], 1 to ``settings.regrowth``, of a frame's steps; None where it is 1 everywhere.

    With it a pixel becomes mature in this frame, or as soon as the longest step allows. ``carried`` is the carried
    maturity; None for a frame that carries nothing, which takes warm-up steps instead.
    """
    maximum = min(settings.regrowth, LONGEST_STEP / settings.step_size)
    if carried is None or maximum <= 1:
        return None
    gain: Plane = np.clip((MATURE - carried) / np.float32(1 - settings.keep), 1, np.float32(maximum))
    return gain if float(gain.max()) > 1 else None


def mature(carried: Plane | None, gain: Plane | None, shape: tuple[int, int], keep: float, passes: float) -> Plane:
    """Return the maturity, of that shape (h, w), after ``passes`` passes with ``gain``."""
    added = np.float32(1 - keep) * (np.float32(passes) if gain is None else passes * gain)
    result: Plane = np.minimum(np.zeros(shape, np.float32) + added if carried is None else carried + added,
                               np.float32(1))
    return result


def at_octave(gain: Plane | None, like: Tensor) -> Tensor | None:
    """Scale the gain to an octave: [1, 1, h, w], for the picture ``like`` [1, 3, h, w]."""
    if gain is None:
        return None
    scaled = F.interpolate(torch.from_numpy(gain)[None, None], like.shape[2:], mode="bilinear", antialias=True)
    return scaled.to(like.device)


def lengthen(before: Tensor, after: Tensor, gain: Tensor | None) -> Tensor:
    """Return ``before + gain * (after - before)``, bounded to [-1, 1]; ``after`` itself without a gain."""
    return after if gain is None else clamp_(torch.lerp(before, after, gain))
