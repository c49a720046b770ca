"""Legibility: move what a frame's steps add to where it hides the picture least. Pure functions on arrays.

Two weights for each pixel. *Masking*: a busy place hides a change that would cover a plain one (Legge, Foley 1980,
"Contrast masking in human vision"; the same term is the denominator of SSIM, Wang et al. 2004). *Concentration*:
SSIM's loss in a plain place saturates, so a few strong motifs cost less than a weak net over all of it; steps count
more where the dream is strong already. Chroma, which hides no shape, is weighted half as much. Figures:
docs/notebook/2026-11-28-legibility-and-consistency.md.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamdream.dream.warp import LUMA_MATRIX, Plane
from streamdream.media.opencv import cv2

MASKING_SIGMA, MOTIF_SIGMA = 3.0, 6.0
"""Pixels of the field: of the frame's contrast, and of the dream's motifs."""
PLAIN_VARIANCE, BUSY_VARIANCE = 4.0, 100.0
"""Of the luma in grey levels: a plain place gets the square root of their ratio, a busy one 1."""
CHROMA_POWER = 0.5
MAX_SCALE, SCALE_POWER = 1.9, 1.8
"""Factor of the steps at legibility 1, and how it grows up to there: with it the gain is that of 0 on three clips."""


def shape_steps(residual: Plane, carried: Plane | None, frame: Plane, legibility: float) -> Plane:
    """Return the residual [h, w, 3] with what was added to ``carried`` (None for nothing) weighted by pixel.

    ``frame`` is [h, w, 3]; all are in [-1, 1] units; ``legibility`` is 0..1. At 0 the residual itself is returned.
    """
    if not legibility:
        return residual
    before = np.zeros_like(residual) if carried is None else _bounded(carried, frame)
    added = residual - before
    luma_weight = _weights(frame, residual if carried is None else before, legibility)
    chroma_weight = _normalized(luma_weight, np.power(luma_weight, CHROMA_POWER), legibility)
    luma_weight = _normalized(luma_weight, luma_weight, legibility)
    luma = _luma(added)
    # luma * luma_weight + (added - luma) * chroma_weight
    shaped = cv2().multiply(added, cv2().merge((chroma_weight,) * 3))
    shaped = cv2().add(shaped, cv2().merge((luma * (luma_weight - chroma_weight),) * 3))
    if carried is None:  # nothing has grown yet, so that no gain is to be made up for: the energy stays
        shaped *= np.sqrt((np.square(added).mean() + 1e-12) / (np.square(shaped).mean() + 1e-12))
    return _bounded(before + shaped, frame)


def _weights(frame: Plane, dream: Plane, legibility: float) -> Plane:
    """Return masking times concentration: [h, w], above 0."""
    luma = _luma(frame) * np.float32(127.5)
    mean = _blur(luma, MASKING_SIGMA)
    variance = np.maximum(_blur(luma * luma, MASKING_SIGMA) - mean * mean, 0)
    masking = (variance + PLAIN_VARIANCE) / (variance + BUSY_VARIANCE)
    energy = _blur(np.square(_luma(dream)), MOTIF_SIGMA)
    energy /= float(energy.mean()) + 1e-12
    concentration = 2 * energy / (energy + 1)
    weights: Plane = np.power(np.sqrt(masking) * concentration, np.float32(legibility))
    return weights


def _normalized(weights: Plane, values: Plane, legibility: float) -> Plane:
    """Scale ``values`` so that the gain stays: by a constant, and for a plain frame by more."""
    level = float(np.mean(np.square(np.square(weights)))) ** (1 / 8) + 1e-6
    scaled: Plane = values * np.float32(MAX_SCALE ** legibility**SCALE_POWER / level)
    return scaled


def _bounded(residual: Plane, frame: Plane) -> Plane:
    """Return the residual that makes a picture in [-1, 1]."""
    bounded: Plane = np.clip(frame + residual, -1, 1) - frame
    return bounded


def _luma(picture: Plane) -> Plane:
    luma: Plane = cv2().transform(picture, LUMA_MATRIX[:1])
    return luma


def _blur(plane: NDArray[np.float32], sigma: float) -> Plane:
    blurred: Plane = cv2().GaussianBlur(plane, (0, 0), sigma)
    return blurred
