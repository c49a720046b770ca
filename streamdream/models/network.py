"""A network as a table of named nodes, and the module that runs the part of it that the taps need.

An architecture file lists its nodes in order; everything else (which taps exist, their channels and strides, how much
of the network a tap needs, its cost in FLOP) is read from that table, so no architecture states it twice.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = "input"


@dataclass(frozen=True)
class Node:
    """One operation; its name is the tap."""

    name: str
    inputs: tuple[str, ...]

    def channels(self, incoming: list[int]) -> int:
        return incoming[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    @property
    def stride_factor(self) -> int:
        return 1


@dataclass(frozen=True)
class Conv(Node):
    """Convolution with bias; batch norm is folded into the weights when they are loaded."""

    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    stored_as: str = ""  # name of its weights when that is not its own

    @property
    def weights(self) -> str:
        return self.stored_as or self.name

    def channels(self, incoming: list[int]) -> int:
        return self.out_channels

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (
            (height + 2 * self.padding[0] - self.kernel[0]) // self.stride + 1,
            (width + 2 * self.padding[1] - self.kernel[1]) // self.stride + 1,
        )

    @property
    def stride_factor(self) -> int:
        return self.stride


@dataclass(frozen=True)
class Relu(Node):
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool(Node):
    kernel: int = 3
    stride: int = 2

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (height - self.kernel) // self.stride + 1, (width - self.kernel) // self.stride + 1

    @property
    def stride_factor(self) -> int:
        return self.stride


@dataclass(frozen=True)
class AvgPool(Node):
    """3x3, stride 1, same size; the padding is not counted in the mean, as in Keras."""


@dataclass(frozen=True)
class Concat(Node):
    """Joins its inputs along the channels."""

    def channels(self, incoming: list[int]) -> int:
        return sum(incoming)


@dataclass(frozen=True)
class TapInfo:
    """What ``streamdream layers`` shows of a tap: ``stride`` is picture pixels per feature, ``min_size`` the least
    picture height or width that reaches it."""

    name: str
    channels: int
    stride: int
    min_size: int


def needed(nodes: Iterable[Node], taps: Iterable[str]) -> list[Node]:
    """The nodes, in order, that ``taps`` depend on."""
    wanted = set(taps)
    kept: list[Node] = []
    for node in reversed(list(nodes)):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def describe(nodes: Iterable[Node]) -> dict[str, TapInfo]:
    """Every tap, in order from the picture upward."""
    nodes = list(nodes)
    channels, strides = {INPUT: 3}, {INPUT: 1}
    for node in nodes:
        channels[node.name] = node.channels([channels[name] for name in node.inputs])
        strides[node.name] = strides[node.inputs[0]] * node.stride_factor
    smallest = _smallest_sizes(nodes)
    return {n.name: TapInfo(n.name, channels[n.name], strides[n.name], smallest[n.name]) for n in nodes}


def _smallest_sizes(nodes: list[Node]) -> dict[str, int]:
    """For every node the smallest square picture whose feature map there still has one position."""
    smallest: dict[str, int] = {}
    pending = [node.name for node in nodes]
    for size in range(1, 512):
        sizes = feature_sizes(nodes, size, size)
        reached = [name for name in pending if min(sizes[name]) >= 1]
        smallest.update(dict.fromkeys(reached, size))
        pending = [name for name in pending if name not in smallest]
        if not pending:
            break
    return smallest


def feature_sizes(nodes: Iterable[Node], height: int, width: int) -> dict[str, tuple[int, int]]:
    """Feature map (height, width) at every node for a picture of that size; zero or less where it is too small."""
    sizes = {INPUT: (height, width)}
    for node in nodes:
        incoming = [sizes[name] for name in node.inputs]
        smallest = min(incoming, key=min)
        sizes[node.name] = node.size(*smallest) if min(smallest) >= 1 else (0, 0)
    return sizes


def count_flop(nodes: Iterable[Node], height: int, width: int) -> int:
    """Floating-point operations of one step: every convolution forward, and once more for the gradient at its input.

    A multiply and an add count as two. The weights are constants, so their gradient is not computed.
    """
    nodes = list(nodes)
    sizes, channels = feature_sizes(nodes, height, width), {INPUT: 3}
    total = 0
    for node in nodes:
        incoming = [channels[name] for name in node.inputs]
        channels[node.name] = node.channels(incoming)
        if isinstance(node, Conv):
            out_height, out_width = sizes[node.name]
            total += 2 * out_height * out_width * node.out_channels * incoming[0] * node.kernel[0] * node.kernel[1]
    return 2 * total


def project_before_pooling(nodes: list[Node], taps: Iterable[str]) -> list[Node]:
    """Swap an average pool and the 1x1 convolution that alone reads it: the same numbers from fewer channels.

    Both are linear and the pool's weights sum to one everywhere, so ``conv(pool(x)) + b = pool(conv(x) + b)``.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    swapped: dict[str, list[Node]] = {}
    for node in nodes:
        reader = readers.get(node.name, [node])
        if (isinstance(node, AvgPool) and node.name not in taps and len(reader) == 1
                and isinstance(reader[0], Conv) and reader[0].kernel == (1, 1) and reader[0].stride == 1):
            conv = reader[0]
            projection = replace(conv, name=f"{conv.name}/projection", inputs=node.inputs, stored_as=conv.weights)
            swapped[node.name] = []
            swapped[conv.name] = [projection, AvgPool(conv.name, (projection.name,))]
    return [new for node in nodes for new in swapped.get(node.name, [node])]


class _MeanOfNine(torch.autograd.Function):
    """The pool of AvgPool with a cheap gradient: autograd's own costs four times its forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        covered = torch.ones(1, 1, *gradient.shape[2:], dtype=gradient.dtype, device=gradient.device)
        share = F.avg_pool2d(covered, 3, 1, 1)  # of each window, the part inside the picture
        return F.avg_pool2d(gradient / share, 3, 1, 1)


class Network(nn.Module):
    """Runs the nodes that ``taps`` need, on one device, in one dtype, channels last.

    ``weights`` maps ``NODE.weight`` (OIHW) and ``NODE.bias`` to float32 tensors. ``forward`` takes a picture
    ``[1, 3, H, W]`` in the network's own input range and returns ``{tap: features [1, C, h, w]}``.
    """

    def __init__(self, nodes: Iterable[Node], weights: Mapping[str, Tensor], taps: Iterable[str],
                 device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.nodes = project_before_pooling(needed(nodes, self.taps), self.taps)
        self._overwritten = self._find_overwritten()
        self.dtype = dtype
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}
        for node in self.nodes:
            if isinstance(node, Conv):
                weight = weights[f"{node.weights}.weight"].to(device, dtype, memory_format=torch.channels_last)
                self._weights[node.name] = (weight, weights[f"{node.weights}.bias"].to(device, dtype))

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        values = {INPUT: picture.to(self.dtype, memory_format=torch.channels_last)}
        for node in self.nodes:
            values[node.name] = self._run(node, [values[name] for name in node.inputs])
        return {tap: values[tap] for tap in self.taps}

    def _find_overwritten(self) -> set[str]:
        """Convolutions whose output only a ReLU reads: it may work in place."""
        readers = [name for node in self.nodes for name in node.inputs]
        return {node.name for node in self.nodes if isinstance(node, Conv)
                and readers.count(node.name) == 1 and node.name not in self.taps}

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        match node:
            case Conv():
                weight, bias = self._weights[node.name]
                return F.conv2d(inputs[0], weight, bias, node.stride, node.padding)
            case Relu():
                return F.relu(inputs[0], inplace=node.inputs[0] in self._overwritten)
            case MaxPool():
                return F.max_pool2d(inputs[0], node.kernel, node.stride)
            case AvgPool():
                pooled: Tensor = _MeanOfNine.apply(inputs[0])  # type: ignore[no-untyped-call]
                return pooled
            case Concat():
                return torch.cat(inputs, 1)
        raise TypeError(f"no operation for {type(node).__name__}")
