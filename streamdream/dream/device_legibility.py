"""``legibility.py`` on tensors: move what a frame's steps add to where it hides the picture least."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from streamdream.dream.device_sampling import blur, luma
from streamdream.dream.legibility import (
    BUSY_VARIANCE,
    CHROMA_POWER,
    MASKING_SIGMA,
    MAX_SCALE,
    MOTIF_SIGMA,
    PLAIN_VARIANCE,
    SCALE_POWER,
)


def shape_steps(residual: Tensor, carried: Tensor, carries: Tensor, frame: Tensor, legibility: Tensor) -> Tensor:
    """Return the residual with what was added to ``carried`` weighted by pixel, as ``legibility.shape_steps``.

    Pictures are [N, 3, h, w]; ``legibility``, 0..1, and ``carries``, 0 for a stream in which nothing was carried to
    this frame, are [N, 1, 1, 1]; there ``carried`` is 0 everywhere. Where legibility is 0 the residual is returned.
    """
    anything = carries > 0
    before = _bounded(carried, frame)
    added = residual - before
    weights = _weights(frame, torch.where(anything, before, residual), legibility)
    chroma_weights = weights.pow(CHROMA_POWER)
    shaped = added * chroma_weights + luma(added) * (weights - chroma_weights)
    scale = _scale(weights, legibility)
    same_energy = torch.sqrt((_mean(added * added) + 1e-12) / (_mean(shaped * shaped) * (scale * scale) + 1e-12))
    shaped = torch.addcmul(before, shaped, torch.where(anything, scale, scale * same_energy))
    return torch.where(legibility > 0, _bounded(shaped, frame), residual)


def _weights(frame: Tensor, dream: Tensor, legibility: Tensor) -> Tensor:
    """Return masking times concentration: [N, 1, h, w], above 0."""
    bright, strong = luma(frame) * 127.5, luma(dream)
    planes = torch.cat((bright, bright * bright, strong * strong), 1)
    mean, squares, energy = blur(planes, (MASKING_SIGMA, MASKING_SIGMA, MOTIF_SIGMA)).chunk(3, 1)
    variance = (squares - mean * mean).clamp(min=0)
    masking = (variance + PLAIN_VARIANCE) / (variance + BUSY_VARIANCE)
    energy = energy / (_mean(energy) + 1e-12)
    concentration = 2 * energy / (energy + 1)
    return torch.pow(torch.sqrt(masking) * concentration, legibility)


def _scale(weights: Tensor, legibility: Tensor) -> Tensor:
    """Return the factor of all weights that keeps the gain: [N, 1, 1, 1]; for a plain frame it is larger."""
    level = _mean(weights.square().square()).pow(1 / 8) + 1e-6
    return torch.exp(math.log(MAX_SCALE) * legibility.pow(SCALE_POWER)) / level


def _bounded(residual: Tensor, frame: Tensor) -> Tensor:
    """Return the residual that makes a picture in [-1, 1]."""
    return (frame + residual).clamp(-1, 1) - frame


def _mean(planes: Tensor) -> Tensor:
    return planes.mean((1, 2, 3), keepdim=True)
