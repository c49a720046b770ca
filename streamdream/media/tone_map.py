"""Y'CbCr samples of HDR to SDR R'G'B' and back, pixel by pixel, through tables: ``ToneMap``."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.color_matrix import FULL_RANGE, LUMA_WEIGHTS, component_matrix
from streamdream.media.input_container import ColorTags
from streamdream.media.opencv import cv2
from streamdream.media.tone_curve import (
    ENTRIES,
    Table,
    compress,
    gamut_compression,
    gamut_expansion,
    gentle_expansion,
)
from streamdream.media.transfer_functions import (
    HLG,
    HLG_GAMMA,
    PEAK,
    SDR_GAMMA,
    Values,
    decode,
    decode_grey,
    encode,
    encode_grey,
    to_bt709,
)

Pixels = NDArray[np.float32]
"""[H, W, 3]"""
SDR_STEPS = 1 << 14
"""Of an SDR signal 0..1 in the tables of luma: int16 holds it, a residual, and their sum."""


def look_up(values: NDArray[Any], table: NDArray[Any]) -> Any:
    """``table`` of 65536 entries at ``values``: 0..1 in float32, or uint16. A tenth of the time of NumPy's indexing."""
    if values.dtype != np.uint16:
        values = (np.clip(values, 0, 1) * np.float32(ENTRIES - 1) + np.float32(0.5)).astype(np.uint16)
    return cv2().LUT(values, table)  # tables of 16 bits: since OpenCV 4.13


@dataclass(frozen=True)
class ToneMap:
    """For Y'CbCr pictures of these colours, whose samples have ``bits`` bits."""

    color: ColorTags
    bits: int

    def to_sdr(self, samples: Pixels) -> Pixels:
        """Y', Cb, Cr -> SDR R'G'B' 0..1, BT.709 with the gamma of BT.1886."""
        matrix, offsets = self._to_samples
        inverse = np.linalg.inv(matrix)
        linear = look_up(_transform(samples, inverse, -inverse @ offsets), _decoding(self.color.trc))
        light = _transform(self._with_system_gamma(linear, HLG_GAMMA - 1), to_bt709(self.color.primaries))
        brightest = np.maximum(_brightest(light), np.float32(1e-9))
        ratio = light / (2 * brightest)[..., None] + np.float32(0.5)
        signal = look_up(_fourth_root(brightest), _compression(self.color.trc))
        result: Pixels = look_up(ratio, gamut_compression()) * signal[..., None]
        return result

    def to_hdr(self, sdr: Pixels) -> Pixels:
        """SDR R'G'B' -> Y', Cb, Cr, not rounded: the inverse, but of gentle slope above the knee and outside of BT.709.

        Values beyond 0..1 are clipped.
        """
        sdr = np.clip(sdr, 0, 1)
        brightest = _brightest(sdr)
        ratio = look_up(sdr / np.maximum(brightest, np.float32(1e-7))[..., None], gamut_expansion())
        light = ratio * look_up(brightest, gentle_expansion(self.color.trc))[..., None]
        light = _transform(light, np.linalg.inv(to_bt709(self.color.primaries)) / PEAK[self.color.trc])
        linear = self._with_system_gamma(np.maximum(light, 0), 1 / HLG_GAMMA - 1)
        return _transform(look_up(_fourth_root(linear), _encoding(self.color.trc)), *self._to_samples)

    def _with_system_gamma(self, linear: Pixels, exponent: float) -> Pixels:
        """The OOTF of HLG or its inverse, which multiply by a power of the luminance of BT.2020."""
        if self.color.trc != HLG:
            return linear
        red, blue = LUMA_WEIGHTS[9]
        luminance = linear @ np.array([red, 1 - red - blue, blue], np.float32)
        result: Pixels = linear * np.power(np.maximum(luminance, np.float32(1e-9)), np.float32(exponent))[..., None]
        return result

    @cached_property
    def grey_to_sdr(self) -> NDArray[np.int16]:
        """[65536]: Y' -> SDR signal of that grey, in ``SDR_STEPS``."""
        signal = self.luma_signal(np.arange(ENTRIES))
        light = compress(decode_grey(signal, self.color.trc), self.color.trc)
        steps: NDArray[np.int16] = np.rint(light ** (1 / SDR_GAMMA) * SDR_STEPS).astype(np.int16)
        return steps

    @cached_property
    def sdr_to_grey(self) -> Table:
        """[65536]: SDR signal of a grey, in ``SDR_STEPS`` -> Y', not rounded."""
        light = gentle_expansion(self.color.trc)[np.rint(np.linspace(0, ENTRIES - 1, SDR_STEPS + 1)).astype(int)]
        matrix, offsets = self._to_samples
        luma = offsets[0] + matrix[0].sum() * encode_grey(light, self.color.trc)
        return np.pad(luma, (0, ENTRIES - SDR_STEPS - 1), "edge").astype(np.float32)

    @cached_property
    def signal_to_sdr(self) -> Table:
        """``sdr_to_grey`` the other way: luma signal 0..1 -> SDR signal of that grey, in ``SDR_STEPS``."""
        signal = self.luma_signal(self.sdr_to_grey[:SDR_STEPS + 1])
        return np.interp(np.linspace(0, 1, ENTRIES), signal, np.arange(SDR_STEPS + 1)).astype(np.float32)

    def luma_signal(self, luma: NDArray[Any]) -> NDArray[Any]:
        """Y' -> 0 at black, 1 at the peak."""
        matrix, offsets = self._to_samples
        return (luma - np.float32(offsets[0])) / np.float32(matrix[0].sum())

    @cached_property
    def _to_samples(self) -> tuple[Values, Values]:
        """The matrix and the offsets that make Y', Cb, Cr of R'G'B'."""
        matrix = component_matrix(False, self.color.colorspace, self.color.range, self.bits).astype(np.float64)
        middle = 1 << self.bits - 1
        return matrix, np.array([0 if self.color.range == FULL_RANGE else 16 << self.bits - 8, middle, middle])


@cache
def tone_map_of(color: ColorTags, bits: int) -> ToneMap:
    """The same object for equal arguments, since its tables take a while."""
    return ToneMap(color, bits)


@cache
def _decoding(trc: int) -> Table:
    return decode(np.linspace(0, 1, ENTRIES), trc).astype(np.float32)


@cache
def _encoding(trc: int) -> Table:
    """The index is the fourth root: as fine in the shadows as the signal is."""
    return encode(np.linspace(0, 1, ENTRIES) ** 4, trc).astype(np.float32)


@cache
def _compression(trc: int) -> Table:
    """Fourth root of light by the peak -> SDR signal."""
    light = compress(PEAK[trc] * np.linspace(0, 1, ENTRIES) ** 4, trc)
    return (light ** (1 / SDR_GAMMA)).astype(np.float32)


def _brightest(pixels: Pixels) -> NDArray[np.float32]:
    """The largest channel, [H, W]; NumPy takes a hundred times as long."""
    red, green, blue = cv2().split(pixels)
    result: NDArray[np.float32] = cv2().max(cv2().max(red, green), blue)
    return result


def _fourth_root(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(np.sqrt(values))


def _transform(pixels: Pixels, matrix: Values, offsets: Values | None = None) -> Pixels:
    """``matrix @ pixel + offsets``."""
    whole = matrix if offsets is None else np.column_stack([matrix, offsets])
    result: Pixels = cv2().transform(pixels, whole.astype(np.float64))
    return result
