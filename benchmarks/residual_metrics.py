"""Metrics of one picture's dream: its colours, its spectrum, and how readable it leaves the picture.

Pictures are uint8 [H, W, 3] RGB; a residual is float32 [H, W, 3] in grey levels, the dream shown minus the frame.
"""
from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamdream.ascent.step import NATURAL_COLORS
from streamdream.dream.optical_flow import grey
from streamdream.media.opencv import cv2

from .metrics import YCBCR, Picture, Residual

NATURAL_AXES = ("grey", "blue_yellow", "green_magenta")
SLOPE_BAND = (0.02, 0.4)
"""Cycles per pixel, from 50 to 2.5 pixels a wave: the window and the corners of the spectrum bend what lies outside."""
SLOPE_BINS = 16


@cache
def natural_axes() -> NDArray[np.float64]:
    """Return the axes of natural colours as columns [3, 3]: U of the singular value decomposition of NATURAL_COLORS."""
    axes: NDArray[np.float64] = np.linalg.svd(np.array(NATURAL_COLORS))[0]
    return axes


def palette(residual: Residual) -> dict[str, float]:
    """Return the share of the residual's energy on each axis of NATURAL_AXES; their sum is 1, or 0 without a residual.

    Photographs have 0.95 to 0.99 on grey and 0.002 to 0.02 on green-magenta.
    """
    energy = np.square(residual.reshape(-1, 3) @ natural_axes()).mean(0)
    return dict(zip(NATURAL_AXES, (energy / (energy.sum() or 1.0)).tolist(), strict=True))


def chroma_share(residual: Residual) -> float:
    """Return the share of the residual's energy in Cb and Cr, of that in Y, Cb and Cr (ITU-R BT.601)."""
    energy = np.square(residual.reshape(-1, 3) @ YCBCR.T).mean(0)
    return float(energy[1:].sum() / (energy.sum() or 1.0))


def power_spectrum(residual: Residual) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the power of a residual's mean over R, G and B, and the frequency and angle of each value.

    All are [H, W // 2 + 1]: power after a Hann window; cycles per pixel; direction of the wave in radians, 0..π, from x
    toward y.
    """
    height, width = residual.shape[:2]
    plane = residual.mean(2) - residual.mean()
    power = np.square(np.abs(np.fft.rfft2(plane * np.outer(np.hanning(height), np.hanning(width)))))
    power[:, 1:(width + 1) // 2] *= 2  # of the half that rfft2 leaves out
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    return power, np.hypot(down, right), np.arctan2(down, right) % np.pi


def spectrum_slope(residual: Residual) -> float:
    """Return the slope of log power over log frequency: 0 for white noise, about -2 for photographs.

    A line through SLOPE_BINS mean powers, at equal distances in log frequency.
    """
    power, frequency, _ = power_spectrum(residual)
    edges = np.geomspace(*SLOPE_BAND, SLOPE_BINS + 1)
    means = [power[(frequency >= low) & (frequency < high)] for low, high in pairwise(edges)]
    centres = np.sqrt(edges[:-1] * edges[1:])
    points = np.array([(np.log(centre), np.log(values.mean())) for centre, values in zip(centres, means, strict=True)
                       if values.size and values.any()])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0]) if len(points) > 1 else 0.0


def similarity(dream: Picture, frame: Picture) -> float:
    """SSIM of the luma of two pictures, at most 1: how much of the frame's structure can be read in the dream.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity": Gaussian window of 11
    pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, without the border.
    """
    x, y = grey(dream).astype(np.float64), grey(frame).astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = cv2().GaussianBlur(plane, (11, 11), 1.5)[5:-5, 5:-5]
        return result

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    return float(np.mean((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                         / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))))
