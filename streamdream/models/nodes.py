"""A network as a table of named nodes.

An architecture file lists its nodes in order; everything else (which taps exist, their channels and strides, how much
of the network a tap needs, its cost in FLOP) is read from that table, so no architecture states it twice. What runs a
table is ``network.Network``. Nothing here needs torch.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

INPUT = "input"

Padding = tuple[int, int, int, int]
"""Pixels added at left, right, top, bottom; as ``torch.nn.functional.pad`` takes them."""


@dataclass(frozen=True)
class Node:
    """One operation; its name is the tap."""

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

    ``same`` pads as TensorFlow's SAME, by a size that depends on the input's, and ignores ``padding``; ``ceil`` lets
    the last window hang over the edge, as in Caffe.
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
        # a window must start inside the picture or its padding (Caffe's pooling_layer.cpp clips so)
        return count - 1 if (count - 1) * self.stride >= length + self.padding[axis] else count

    def pads(self, height: int, width: int) -> Padding:
        """What to add around an input of that size so that plain windows cover it; negative where it is cropped."""
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
    stored_as: str = ""  # name of its weights when that is not its own

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
    """The largest value of each window; padding never wins."""


@dataclass(frozen=True)
class AvgPool(Window):
    """The mean of each window; ``count_padding`` says whether padded places count as zeros or not at all."""

    count_padding: bool = False

    @property
    def averages_same(self) -> bool:
        """Stride 1, same size: its weights sum to one everywhere unless padding counts."""
        return self.stride == 1 and self.padding == (self.kernel[0] // 2, self.kernel[1] // 2)


@dataclass(frozen=True)
class Lrn(Node):
    """Local response normalisation across channels (Krizhevsky et al. 2012): x * (k + a * sum of x^2)^-beta.

    The sum runs over ``radius`` channels on either side; ``scale`` is that a, per square, not Caffe's alpha, which is
    divided by the number of channels in the sum.
    """

    radius: int = 2
    scale: float = 2e-5
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Concat(Node):
    """Joins its inputs along the channels."""

    def channels(self, incoming: list[int]) -> int:
        return sum(incoming)


@dataclass(frozen=True)
class Softmax(Node):
    """Over the channels, at every position."""


@dataclass(frozen=True)
class TapInfo:
    """What ``streamdream layers`` shows of a tap: ``stride`` is picture pixels per feature, ``min_size`` the least
    picture height or width that reaches it."""

    name: str
    channels: int
    stride: int
    min_size: int


def subgraph(nodes: Iterable[Node], taps: Iterable[str]) -> list[Node]:
    """The nodes, in order, that ``taps`` depend on."""
    needed = set(taps)
    selected: list[Node] = []
    for node in reversed(list(nodes)):
        if node.name in needed:
            selected.append(node)
            needed.update(node.inputs)
    return selected[::-1]


def fp32_prefix(nodes: Iterable[Node]) -> set[str]:
    """The nodes up to the first pooling, with it, and a 1x1 convolution behind it."""
    before, behind = {INPUT}, set[str]()
    for node in nodes:
        if before.issuperset(node.inputs):
            (behind if isinstance(node, MaxPool | AvgPool) else before).add(node.name)
        elif behind.issuperset(node.inputs) and (isinstance(node, Relu)
                                                 or (isinstance(node, Conv) and node.kernel == (1, 1))):
            behind.add(node.name)
    return (before | behind) - {INPUT}


def describe(nodes: Iterable[Node]) -> dict[str, TapInfo]:
    """Every tap, in order from the picture upward."""
    nodes = list(nodes)
    channels, strides = {INPUT: 3}, {INPUT: 1}
    for node in nodes:
        channels[node.name] = node.channels([channels[name] for name in node.inputs])
        strides[node.name] = strides[node.inputs[0]] * (node.stride if isinstance(node, Window) else 1)
    smallest = _smallest_sizes(nodes)
    return {n.name: TapInfo(n.name, channels[n.name], strides[n.name], smallest[n.name]) for n in nodes}


def _smallest_sizes(nodes: list[Node]) -> dict[str, int]:
    """For every node the smallest square picture whose feature map there still has one position."""
    smallest: dict[str, int] = {}
    for size in range(1, 1024):
        sizes = feature_sizes(nodes, size, size)
        smallest |= {name: size for name, (height, _) in sizes.items() if height >= 1 and name not in smallest}
        if len(smallest) > len(nodes):
            break
    return smallest


def feature_sizes(nodes: Iterable[Node], height: int, width: int) -> dict[str, tuple[int, int]]:
    """Feature map (height, width) at every node for a picture of that size; zero or less where it is too small."""
    sizes = {INPUT: (height, width)}
    for node in nodes:
        incoming = min((sizes[name] for name in node.inputs), key=min)
        sizes[node.name] = node.size(*incoming) if min(incoming) >= 1 else (0, 0)
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
        reader = readers.get(node.name, [])
        if (isinstance(node, AvgPool) and node.averages_same and not node.count_padding and node.name not in taps
                and len(reader) == 1 and isinstance(reader[0], Conv) and reader[0].kernel == (1, 1)):
            conv = reader[0]
            projection = replace(conv, name=f"{conv.name}/projection", inputs=node.inputs, stored_as=conv.weights)
            swapped[node.name] = []
            swapped[conv.name] = [projection, replace(node, name=conv.name, inputs=(projection.name,))]
    return [new for node in nodes for new in swapped.get(node.name, [node])]
