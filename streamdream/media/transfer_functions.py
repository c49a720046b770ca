"""Transfer functions of HDR and SDR video, and the matrix of primaries: pure functions on arrays of any shape.

Light is linear and displayed; 1 is reference white, which is 203 cd/m² in HDR (ITU-R BT.2408) and the peak in SDR.
Signals are R'G'B' in 0..1. PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) are as in ITU-R BT.2100.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]

PQ, HLG = 16, 18
"""AVCOL_TRC numbers of ITU-T H.273."""
PEAK = {PQ: 10_000 / 203, HLG: 1_000 / 203}
"""Light at the signal 1. HLG is relative; 1000 cd/m² is its nominal peak, to which its system gamma of 1.2 belongs."""
M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
HLG_GAMMA = 1.2
SDR_GAMMA = 2.4
"""ITU-R BT.1886."""
PRIMARIES = {1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
             12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))}
"""AVCOL_PRI number -> CIE x, y of red, green and blue; the white of all is D65."""
D65 = (0.3127, 0.3290)


def decode(signal: Values, trc: int) -> Values:
    """A signal -> linear light of its channel in 0..1: displayed in PQ, of the scene (before the OOTF) in HLG."""
    signal = np.clip(signal, 0, 1)
    if trc == HLG:
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12)
    root = signal ** (1 / M2)
    linear: Values = (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)
    return linear


def encode(linear: Values, trc: int) -> Values:
    """The inverse of ``decode``."""
    linear = np.clip(linear, 0, 1)
    if trc == HLG:
        log = HLG_A * np.log(np.maximum(12 * linear - HLG_B, 1e-6)) + HLG_C
        return np.where(linear <= 1 / 12, np.sqrt(3 * linear), log)
    root = linear**M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2


def decode_grey(signal: Values, trc: int) -> Values:
    """A signal that is equal in all channels -> light."""
    return PEAK[trc] * decode(signal, trc) ** (HLG_GAMMA if trc == HLG else 1)


def encode_grey(light: Values, trc: int) -> Values:
    """The inverse of ``decode_grey``."""
    return encode((np.maximum(light, 0) / PEAK[trc]) ** (1 / HLG_GAMMA if trc == HLG else 1), trc)


@cache
def to_bt709(primaries: int) -> Values:
    """[3, 3]: linear RGB of ``primaries`` -> linear RGB of BT.709; BT.2020 for primaries that have no row."""
    result: Values = np.linalg.inv(_to_xyz(1)) @ _to_xyz(primaries)
    return result


def _to_xyz(primaries: int) -> Values:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in PRIMARIES.get(primaries, PRIMARIES[9])]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    result: Values = columns * np.linalg.solve(columns, white)
    return result
