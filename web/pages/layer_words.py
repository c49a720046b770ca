"""What the layers of a network tend to dream, in plain words beside their names."""
from __future__ import annotations

from streamdream import models

from ..core import strings

SAME_WEIGHTS = {"keras_inception_v3": "inception_v3"}
"""Networks whose lower layers are those of another."""


def words(model: str) -> dict[str, str]:
    """Return words for each layer of a network: its own where they are known, else those of all layers as deep."""
    section = strings.section("layer_words")
    own, by_stride = section.get(SAME_WEIGHTS.get(model, model), {}), section["strides"]
    deepest = max(map(int, by_stride))
    return {name: own.get(name) or by_stride[str(min(max(tap.stride, 2), deepest))]
            for name, tap in models.get(model).taps().items()}
