"""Between HDR light and SDR signals: the tone curve and the gamut, as functions and as tables.

Both ways keep the hue: the brightest channel takes the curve, the others keep their ratio to it.
"""
from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamdream.media.transfer_functions import PEAK, PQ, SDR_GAMMA, Values, decode_grey, encode_grey

KNEE = 100 / 203
"""Light up to which the curve is the identity: 100 cd/m², the SDR signal 0.745."""
STEEPEST = 1.0
"""Of the way back, above the knee: PQ signal by SDR signal. The true inverse reaches it at 230 cd/m²; at 4000 cd/m² it
is 10, and a faint dream would become lightning."""
GAMUT_START, GAMUT_LIMIT = 0.15, -0.81
"""Of a channel by the brightest one, in SDR signals: compressed from the first value down; the second, which the most
saturated cyan of BT.2020 has, becomes 0."""
ENTRIES = 1 << 16
"""Of a table; its index is uint16."""

Table = NDArray[np.float32]


def compress(light: Values, trc: int) -> Values:
    """HDR light, 0 to ``PEAK[trc]`` -> SDR light 0..1.

    The curve "mobius" of FFmpeg's filter tonemap and of mpv: a straight line to the knee, then a hyperbola that has the
    same slope there and is 1 at the peak.
    """
    scale, a, b = _hyperbola(PEAK[trc])
    light = np.minimum(light, PEAK[trc])
    return np.where(light <= KNEE, light, scale * (light + a) / (light + b))


def expand(light: Values, trc: int) -> Values:
    """The inverse of ``compress``."""
    scale, a, b = _hyperbola(PEAK[trc])
    light = np.minimum(light, 1)
    return np.where(light <= KNEE, light, (light * b - scale * a) / (scale - light))


def _hyperbola(peak: float) -> tuple[float, float, float]:
    a = -KNEE**2 * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    return (b * b + 2 * b * KNEE + KNEE**2) / (b - a), a, b


@cache
def gentle_expansion(trc: int) -> Table:
    """SDR signal 0..1 -> HDR light: by ``expand`` until its slope is ``STEEPEST``, from there at that slope."""
    sdr = np.linspace(0, 1, ENTRIES)
    signal = encode_grey(expand(sdr**SDR_GAMMA, trc), PQ)
    steep = (np.gradient(signal, sdr) > STEEPEST) & (sdr > KNEE ** (1 / SDR_GAMMA))
    start = int(np.argmax(steep)) if steep.any() else ENTRIES
    signal[start:] = signal[start - 1] + STEEPEST * (sdr[start:] - sdr[start - 1])
    return decode_grey(signal, PQ).astype(np.float32)


@cache
def gamut_compression() -> Table:
    """Ratio to the brightest channel in linear BT.709, -1..1 -> the same ratio of SDR signals, 0..1.

    As in the ACES Reference Gamut Compression, the distance from the brightest channel is compressed.
    """
    linear = np.linspace(-1, 1, ENTRIES)
    ratio = np.sign(linear) * np.abs(linear) ** (1 / SDR_GAMMA)
    below = np.maximum(GAMUT_START - ratio, 0)
    return np.where(ratio >= GAMUT_START, ratio,
                    np.maximum(GAMUT_START - below / (1 + below / _gamut_scale()), 0)).astype(np.float32)


@cache
def gamut_expansion() -> Table:
    """The inverse of ``gamut_compression``, 0..1 -> -1..1; outside of BT.709 no steeper than at its edge."""
    ratio, scale = np.linspace(0, 1, ENTRIES), _gamut_scale()
    edge = GAMUT_START / (1 + GAMUT_START / scale)
    below = np.maximum(GAMUT_START - ratio, 0)
    inside = np.minimum(below, edge)
    below = inside / (1 - inside / scale) + (below - inside) / (1 - edge / scale) ** 2
    ratio = np.where(ratio >= GAMUT_START, ratio, GAMUT_START - below)
    return (np.sign(ratio) * np.abs(ratio) ** SDR_GAMMA).astype(np.float32)


def _gamut_scale() -> float:
    length = GAMUT_START - GAMUT_LIMIT
    return length * GAMUT_START / (length - GAMUT_START)
