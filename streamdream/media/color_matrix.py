"""Matrices between R'G'B' and the components of a picture (ITU-R BT.601, BT.709, BT.2020)."""
from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
                9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Colour matrices (ITU-T H.273, MatrixCoefficients) -> their weights of red and blue, KR and KB."""
FULL_RANGE = 2


@cache
def component_matrix(is_rgb: bool, colorspace: int, color_range: int, bits: int) -> NDArray[np.float32]:
    """[3, 3]: RGB, of which 1 is the span from black to white, -> components in their units."""
    span = 2**bits - 1
    if is_rgb:
        return np.eye(3, dtype=np.float32) * np.float32(span)
    red, blue = LUMA_WEIGHTS.get(colorspace, LUMA_WEIGHTS[6])
    luma = np.array([red, 1 - red - blue, blue])
    rows = np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)])
    spans = (span, span, span) if color_range == FULL_RANGE else (219 << bits - 8, 224 << bits - 8, 224 << bits - 8)
    matrix: NDArray[np.float32] = (rows * np.array(spans)[:, None]).astype(np.float32)
    return matrix
