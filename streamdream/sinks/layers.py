"""The layers that keys step through: a network's blocks, not each of its hundred parts."""
from __future__ import annotations

from functools import cache

FEWEST_BLOCKS = 3


@cache
def main_layers(model: str) -> tuple[str, ...]:
    """Names of taps, lowest first: where branches meet, or all of them in a network without branches."""
    from streamdream import models
    from streamdream.models.nodes import Concat

    row = models.get(model)
    blocks = tuple(node.name for node in row.nodes() if isinstance(node, Concat))
    return blocks if len(blocks) >= FEWEST_BLOCKS else tuple(row.taps())
