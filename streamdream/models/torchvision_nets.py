"""torchvision's googlenet and inception_v3, up to their last block, under their modules' names.

``inception3a.branch2.0`` is that module's output, after ReLU; ``inception3a.branch2.0.bn`` is before it, convolution
and batch norm folded together. What torchvision computes without a module has a name here: ``Mixed_5b.pool``,
``Mixed_7b.branch3x3``. torchvision's googlenet is not BVLC's: batch norm instead of LRN, 3x3 where the paper has 5x5
(pytorch/vision issue 906), other weights, other dreams.
"""
from __future__ import annotations

from streamdream.models.caffe_googlenet import BLOCKS  # the widths are the paper's in both
from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, MaxPool, Node, Relu

Kernel = tuple[int, int]


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def conv(self, name: str, source: str, channels: int, kernel: Kernel = (1, 1), stride: int = 1,
             same: bool = True) -> str:
        """A BasicConv2d: convolution, batch norm, ReLU."""
        padding = (kernel[0] // 2, kernel[1] // 2) if same else (0, 0)
        before = f"{name}.bn"
        self.nodes += [Conv(before, (source,), kernel, stride, padding, out_channels=channels, stored_as=name),
                       Relu(name, (before,))]
        return name

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        return node.name


def googlenet() -> list[Node]:
    """torchvision.models.googlenet to ``inception5b``."""
    net = _Builder()
    x = net.conv("conv1", INPUT, 64, (7, 7), 2)
    x = net.add(MaxPool("maxpool1", (x,), (3, 3), 2, ceil=True))
    x = net.conv("conv3", net.conv("conv2", x, 64), 192, (3, 3))
    x = net.add(MaxPool("maxpool2", (x,), (3, 3), 2, ceil=True))
    for block, widths in BLOCKS.items():
        x = _inception(net, f"inception{block}", x, widths)
        if block == "3b":
            x = net.add(MaxPool("maxpool3", (x,), (3, 3), 2, ceil=True))
        if block == "4e":
            x = net.add(MaxPool("maxpool4", (x,), (2, 2), 2, ceil=True))
    return net.nodes


def _inception(net: _Builder, name: str, x: str, widths: tuple[int, ...]) -> str:
    one, three_reduce, three, five_reduce, five, projection = widths
    pool = MaxPool(f"{name}.branch4.0", (x,), (3, 3), 1, (1, 1), ceil=True)
    return net.add(Concat(name, (
        net.conv(f"{name}.branch1", x, one),
        net.conv(f"{name}.branch2.1", net.conv(f"{name}.branch2.0", x, three_reduce), three, (3, 3)),
        net.conv(f"{name}.branch3.1", net.conv(f"{name}.branch3.0", x, five_reduce), five, (3, 3)),
        net.conv(f"{name}.branch4.1", net.add(pool), projection))))


def inception_v3() -> list[Node]:
    """torchvision.models.inception_v3 to ``Mixed_7c``. Unlike Keras's, its average pools count the padding."""
    net = _Builder()
    x = net.conv("Conv2d_1a_3x3", INPUT, 32, (3, 3), 2, same=False)
    x = net.conv("Conv2d_2a_3x3", x, 32, (3, 3), same=False)
    x = net.conv("Conv2d_2b_3x3", x, 64, (3, 3))
    x = net.add(MaxPool("maxpool1", (x,), (3, 3), 2))
    x = net.conv("Conv2d_3b_1x1", x, 80)
    x = net.conv("Conv2d_4a_3x3", x, 192, (3, 3), same=False)
    x = net.add(MaxPool("maxpool2", (x,), (3, 3), 2))
    for name, pool_channels in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _block_a(net, name, x, pool_channels)
    x = _block_b(net, "Mixed_6a", x)
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = _block_c(net, name, x, inner)
    x = _block_d(net, "Mixed_7a", x)
    for name in ("Mixed_7b", "Mixed_7c"):
        x = _block_e(net, name, x)
    return net.nodes


def _chain(net: _Builder, branch: str, x: str, *layers: tuple[int, Kernel], last_stride: int = 1) -> str:
    """``branch_1``, ``branch_2``, ...; a last one with a stride is not padded."""
    for number, (channels, kernel) in enumerate(layers, 1):
        stride = last_stride if number == len(layers) else 1
        x = net.conv(f"{branch}_{number}", x, channels, kernel, stride, same=stride == 1)
    return x


def _pooled(net: _Builder, name: str, x: str, channels: int) -> str:
    pool = net.add(AvgPool(f"{name}.pool", (x,), (3, 3), 1, (1, 1), count_padding=True))
    return net.conv(f"{name}.branch_pool", pool, channels)


def _block_a(net: _Builder, name: str, x: str, pool_channels: int) -> str:
    return net.add(Concat(name, (
        net.conv(f"{name}.branch1x1", x, 64),
        _chain(net, f"{name}.branch5x5", x, (48, (1, 1)), (64, (5, 5))),
        _chain(net, f"{name}.branch3x3dbl", x, (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        _pooled(net, name, x, pool_channels))))


def _block_b(net: _Builder, name: str, x: str) -> str:
    return net.add(Concat(name, (
        net.conv(f"{name}.branch3x3", x, 384, (3, 3), 2, same=False),
        _chain(net, f"{name}.branch3x3dbl", x, (64, (1, 1)), (96, (3, 3)), (96, (3, 3)), last_stride=2),
        net.add(MaxPool(f"{name}.pool", (x,), (3, 3), 2)))))


def _block_c(net: _Builder, name: str, x: str, inner: int) -> str:
    return net.add(Concat(name, (
        net.conv(f"{name}.branch1x1", x, 192),
        _chain(net, f"{name}.branch7x7", x, (inner, (1, 1)), (inner, (1, 7)), (192, (7, 1))),
        _chain(net, f"{name}.branch7x7dbl", x, (inner, (1, 1)), (inner, (7, 1)), (inner, (1, 7)), (inner, (7, 1)),
               (192, (1, 7))),
        _pooled(net, name, x, 192))))


def _block_d(net: _Builder, name: str, x: str) -> str:
    return net.add(Concat(name, (
        _chain(net, f"{name}.branch3x3", x, (192, (1, 1)), (320, (3, 3)), last_stride=2),
        _chain(net, f"{name}.branch7x7x3", x, (192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3)),
               last_stride=2),
        net.add(MaxPool(f"{name}.pool", (x,), (3, 3), 2)))))


def _block_e(net: _Builder, name: str, x: str) -> str:
    one = net.conv(f"{name}.branch1x1", x, 320)
    three = _split(net, f"{name}.branch3x3", "2", net.conv(f"{name}.branch3x3_1", x, 384))
    double = _chain(net, f"{name}.branch3x3dbl", x, (448, (1, 1)), (384, (3, 3)))
    return net.add(Concat(name, (one, three, _split(net, f"{name}.branch3x3dbl", "3", double),
                                 _pooled(net, name, x, 192))))


def _split(net: _Builder, branch: str, number: str, x: str) -> str:
    """A 1x3 and a 3x1 convolution side by side."""
    return net.add(Concat(branch, (net.conv(f"{branch}_{number}a", x, 384, (1, 3)),
                                   net.conv(f"{branch}_{number}b", x, 384, (3, 1)))))
