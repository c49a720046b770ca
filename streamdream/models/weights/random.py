"""Weights for a network whose trained ones are not at hand: for timings and tests, not for dreams."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from streamdream.models.nodes import INPUT, Conv, Node


def random_weights(table: Iterable[Node], seed: int = 0) -> dict[str, Tensor]:
    """He-initialised, so that values neither vanish nor explode on the way up."""
    generator, weights, channels = torch.Generator().manual_seed(seed), {}, {INPUT: 3}
    for node in table:
        incoming = [channels[name] for name in node.inputs]
        channels[node.name] = node.channels(incoming)
        if isinstance(node, Conv):
            shape = (node.out_channels, incoming[0], *node.kernel)
            scale = (2 / (incoming[0] * node.kernel[0] * node.kernel[1])) ** 0.5
            weights[f"{node.weights}.weight"] = torch.randn(shape, generator=generator) * scale
            weights[f"{node.weights}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return weights
