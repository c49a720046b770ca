"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) as Keras builds it, from the picture to ``mixed10``.

Tap names are Keras's: ``conv2d_7`` is a convolution with its batch norm folded in, before ReLU; ``activation_7`` is the
same after ReLU; ``mixed4`` is a whole block. Input is RGB in [-1, 1]. The embedded weights end at ``mixed5``.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, MaxPool, Node, Relu

if TYPE_CHECKING:
    from torch import Tensor

BATCH_NORM_EPSILON = 1e-3


class _Builder:
    """Appends nodes in the order in which Keras creates its layers, because its names are numbered by it."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.convs = self.max_pools = self.avg_pools = self.concats = 0

    def conv(self, source: str, channels: int, height: int, width: int, stride: int = 1, same: bool = True) -> str:
        self.convs += 1
        padding = (height // 2, width // 2) if same else (0, 0)
        name, relu = f"conv2d_{self.convs}", f"activation_{self.convs}"
        conv = Conv(name, (source,), (height, width), stride, padding, out_channels=channels)
        self.nodes += [conv, Relu(relu, (name,))]
        return relu

    def max_pool(self, source: str) -> str:
        self.max_pools += 1
        self.nodes.append(MaxPool(f"max_pooling2d_{self.max_pools}", (source,), (3, 3), 2))
        return self.nodes[-1].name

    def avg_pool(self, source: str) -> str:
        self.avg_pools += 1
        self.nodes.append(AvgPool(f"average_pooling2d_{self.avg_pools}", (source,), (3, 3), 1, (1, 1)))
        return self.nodes[-1].name

    def concat(self, name: str, *sources: str) -> str:
        """Keras numbers those that are not named."""
        self.concats += not name
        self.nodes.append(Concat(name or f"concatenate_{self.concats}", sources))
        return self.nodes[-1].name


def nodes(up_to: str = "mixed5") -> list[Node]:
    """The network as a table, lowest first, from the picture to the block ``up_to``."""
    net = _Builder()
    x = net.conv(INPUT, 32, 3, 3, stride=2, same=False)
    x = net.conv(x, 32, 3, 3, same=False)
    x = net.conv(x, 64, 3, 3)
    x = net.max_pool(x)
    x = net.conv(x, 80, 1, 1, same=False)
    x = net.conv(x, 192, 3, 3, same=False)
    x = net.max_pool(x)
    for block, pool_channels in enumerate((32, 64, 64)):
        x = _block_35(net, f"mixed{block}", x, pool_channels)
    x = _block_reduce(net, "mixed3", x)
    for block, inner in ((4, 128), (5, 160), (6, 160), (7, 192)):
        x = _block_17(net, f"mixed{block}", x, inner)
    x = _block_reduce_17(net, "mixed8", x)
    for block in (9, 10):
        x = _block_8(net, f"mixed{block}", f"mixed9_{block - 9}", x)
    last = [node.name for node in net.nodes].index(up_to)
    return net.nodes[:last + 1]


def _block_35(net: _Builder, name: str, x: str, pool_channels: int) -> str:
    one = net.conv(x, 64, 1, 1)
    five = net.conv(net.conv(x, 48, 1, 1), 64, 5, 5)
    three = net.conv(net.conv(net.conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3)
    pool = net.conv(net.avg_pool(x), pool_channels, 1, 1)
    return net.concat(name, one, five, three, pool)


def _block_reduce(net: _Builder, name: str, x: str) -> str:
    three = net.conv(x, 384, 3, 3, stride=2, same=False)
    double = net.conv(net.conv(net.conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3, stride=2, same=False)
    return net.concat(name, three, double, net.max_pool(x))


def _block_17(net: _Builder, name: str, x: str, inner: int) -> str:
    one = net.conv(x, 192, 1, 1)
    seven = net.conv(net.conv(net.conv(x, inner, 1, 1), inner, 1, 7), 192, 7, 1)
    double = x
    for height, width in ((1, 1), (7, 1), (1, 7), (7, 1)):
        double = net.conv(double, inner, height, width)
    double = net.conv(double, 192, 1, 7)
    pool = net.conv(net.avg_pool(x), 192, 1, 1)
    return net.concat(name, one, seven, double, pool)


def _block_reduce_17(net: _Builder, name: str, x: str) -> str:
    three = net.conv(net.conv(x, 192, 1, 1), 320, 3, 3, stride=2, same=False)
    seven = net.conv(net.conv(net.conv(x, 192, 1, 1), 192, 1, 7), 192, 7, 1)
    seven = net.conv(seven, 192, 3, 3, stride=2, same=False)
    return net.concat(name, three, seven, net.max_pool(x))


def _block_8(net: _Builder, name: str, split_name: str, x: str) -> str:
    one = net.conv(x, 320, 1, 1)
    three = net.conv(x, 384, 1, 1)
    three = net.concat(split_name, net.conv(three, 384, 1, 3), net.conv(three, 384, 3, 1))
    double = net.conv(net.conv(x, 448, 1, 1), 384, 3, 3)
    double = net.concat("", net.conv(double, 384, 1, 3), net.conv(double, 384, 3, 1))
    pool = net.conv(net.avg_pool(x), 192, 1, 1)
    return net.concat(name, one, three, double, pool)


def fold_batch_norm(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keras's kernel, moving mean and variance and beta (there is no gamma) -> one weight and bias a convolution.

    ``y = (w * x - mean) / sqrt(variance + epsilon) + beta``, so ``w' = w / s`` and ``b' = beta - mean / s``.
    """
    import torch

    folded: dict[str, Tensor] = {}
    for key in stored:
        layer, _, kind = key.partition(".")
        if kind == "kernel":
            deviation = torch.sqrt(stored[f"{layer}.moving_variance"] + BATCH_NORM_EPSILON)
            folded[f"{layer}.weight"] = stored[key] / deviation.view(-1, 1, 1, 1)
            folded[f"{layer}.bias"] = stored[f"{layer}.beta"] - stored[f"{layer}.moving_mean"] / deviation
    return folded
