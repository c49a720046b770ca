"""A network as a table of named nodes.

An architecture file lists its nodes in order. All else is derived from that table: the taps, their channels and
strides, the part of the network that a tap needs, its cost in FLOP. ``network.Network`` runs a table. This module does
not need torch.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

INPUT = "input"

Padding = tuple[int, int, int, int]
"""Pixels added at left, right, top, bottom; as ``torch.nn.functional.pad`` takes them."""


@dataclass(frozen=True)
class Node:
    """One operation; its name is the name of the tap."""

    name: str
    inputs: tuple[str, ...]

    def channels(self, incoming: list[int]) -> int:
        return incoming[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output; zero or less when the input is too small."""
        return height, width


@dataclass(frozen=True)
class Window(Node):
    """An operation over a sliding window.

    ``same`` pads as TensorFlow's SAME does, depending on the input size, and ignores ``padding``. ``ceil`` rounds the
    number of windows up, as in Caffe, so that the last one may extend beyond the edge.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    same: bool = False
    ceil: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self._length(height, 0), self._length(width, 1)

    def _length(self, length: int, axis: int) -> int:
        if self.same:
            return -(-length // self.stride)
        spare = length + 2 * self.padding[axis] - self.kernel[axis]
        if not self.ceil:
            return spare // self.stride + 1 if spare >= 0 else 0
        count = -(-spare // self.stride) + 1
        # a window must start inside the picture or its padding, as in Caffe's pooling_layer.cpp
        return count - 1 if (count - 1) * self.stride >= length + self.padding[axis] else count

    def pads(self, height: int, width: int) -> Padding:
        """Return the padding for an input of that size so that all windows fit exactly; negative values crop."""
        top, bottom = self._pad(height, 0)
        left, right = self._pad(width, 1)
        return left, right, top, bottom

    def _pad(self, length: int, axis: int) -> tuple[int, int]:
        total = (self._length(length, axis) - 1) * self.stride + self.kernel[axis] - length
        if self.same:
            before = max(total, 0) // 2
            return before, max(total, 0) - before
        return self.padding[axis], total - self.padding[axis]


@dataclass(frozen=True)
class Conv(Window):
    """Convolution with bias; a batch norm is folded into the weights when they are loaded."""

    out_channels: int = 1
    stored_as: str = ""  # name of its weights, if not the name of the node

    @property
    def weights(self) -> str:
        return self.stored_as or self.name

    def channels(self, incoming: list[int]) -> int:
        return self.out_channels


@dataclass(frozen=True)
class Relu(Node):
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool(Window):
    """The maximum of each window; padding counts as minus infinity."""


@dataclass(frozen=True)
class AvgPool(Window):
    """The mean of each window; with ``count_padding`` the padding counts as zeros, else it is left out."""

    count_padding: bool = False

    @property
    def averages_same(self) -> bool:
        """Whether the size is kept: the weights then sum to one everywhere, unless padding counts."""
        return self.stride == 1 and self.padding == (self.kernel[0] // 2, self.kernel[1] // 2)


@dataclass(frozen=True)
class Lrn(Node):
    """Local response normalisation across channels (Krizhevsky et al. 2012): x * (k + a * sum of x^2)^-beta.

    The sum covers ``radius`` channels on either side. ``scale`` is a, the factor of one square; Caffe's alpha is a
    times the number of channels in the sum.
    """

    radius: int = 2
    scale: float = 2e-5
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Concat(Node):
    """Concatenation of the inputs along the channels."""

    def channels(self, incoming: list[int]) -> int:
        return sum(incoming)


@dataclass(frozen=True)
class Softmax(Node):
    """Softmax over the channels, at every position."""


@dataclass(frozen=True)
class TapInfo:
    """Properties of a tap. ``stride`` is in pixels of the picture per feature; ``min_size`` is the smallest height and
    width of a picture for which the tap has a feature.
    """

    name: str
    channels: int
    stride: int
    min_size: int


def subgraph(nodes: Iterable[Node], taps: Iterable[str]) -> list[Node]:
    """Return the nodes that ``taps`` depend on, in order."""
    needed = set(taps)
    selected: list[Node] = []
    for node in reversed(list(nodes)):
        if node.name in needed:
            selected.append(node)
            needed.update(node.inputs)
    return selected[::-1]


def fp32_prefix(nodes: Iterable[Node]) -> set[str]:
    """Return the names of the nodes up to and including the first pooling, and of a 1x1 convolution after it."""
    before, after = {INPUT}, set[str]()
    for node in nodes:
        if before.issuperset(node.inputs):
            (after if isinstance(node, MaxPool | AvgPool) else before).add(node.name)
        elif after.issuperset(node.inputs) and (isinstance(node, Relu)
                                                 or (isinstance(node, Conv) and node.kernel == (1, 1))):
            after.add(node.name)
    return (before | after) - {INPUT}


def describe(nodes: Iterable[Node]) -> dict[str, TapInfo]:
    """Return the properties of every tap, in the order of the nodes."""
    nodes = list(nodes)
    channels, strides = {INPUT: 3}, {INPUT: 1}
    for node in nodes:
        channels[node.name] = node.channels([channels[name] for name in node.inputs])
        strides[node.name] = strides[node.inputs[0]] * (node.stride if isinstance(node, Window) else 1)
    smallest = _smallest_sizes(nodes)
    return {n.name: TapInfo(n.name, channels[n.name], strides[n.name], smallest[n.name]) for n in nodes}


def _smallest_sizes(nodes: list[Node]) -> dict[str, int]:
    """Return for every node the size of the smallest square picture that gives it a feature map of one position."""
    smallest: dict[str, int] = {}
    for size in range(1, 1024):
        sizes = feature_sizes(nodes, size, size)
        smallest |= {name: size for name, (height, _) in sizes.items() if height >= 1 and name not in smallest}
        if len(smallest) > len(nodes):
            break
    return smallest


def feature_sizes(nodes: Iterable[Node], height: int, width: int) -> dict[str, tuple[int, int]]:
    """Return the (height, width) of the feature map at every node; zero or less if the picture is too small."""
    sizes = {INPUT: (height, width)}
    for node in nodes:
        incoming = min((sizes[name] for name in node.inputs), key=min)
        sizes[node.name] = node.size(*incoming) if min(incoming) >= 1 else (0, 0)
    return sizes


def count_flop(nodes: Iterable[Node], height: int, width: int) -> int:
    """Count the floating-point operations of one step: each convolution forward, and the gradient at its input.

    A multiply-add counts as two. The weights are constant and need no gradient.
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
    """Swap each average pool with the 1x1 convolution that is its only reader, so that the pool has fewer channels.

    The result is the same: both are linear and the weights of the pool sum to one everywhere, so
    ``conv(pool(x)) + b = pool(conv(x) + b)``.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    swapped: dict[str, list[Node]] = {}
    for node in nodes:
        reader = readers.get(node.name, [])
        if (isinstance(node, AvgPool) and node.averages_same and not node.count_padding and node.name not in taps
                and len(reader) == 1 and isinstance(reader[0], Conv) and reader[0].kernel == (1, 1)):
            conv = reader[0]
            projection = replace(conv, name=f"{conv.name}/projection", inputs=node.inputs, stored_as=conv.weights)
            swapped[node.name] = []
            swapped[conv.name] = [projection, replace(node, name=conv.name, inputs=(projection.name,))]
    return [new for node in nodes for new in swapped.get(node.name, [node])]
