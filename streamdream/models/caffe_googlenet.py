"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842) as BVLC's Caffe deploy.prototxt writes it, layer by layer.

Every blob is a tap under its Caffe name; a convolution's is its value before ReLU, as in the notebook of 2015, whose
``net.forward(end="inception_4c/3x3")`` stops at the convolution. The value after ReLU is the tap ``.../relu_3x3``. All
the GoogLeNets of Caffe (BVLC, Places205, Places365, Cars, SOS) are this table with other weights.
"""
from __future__ import annotations

from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, Lrn, MaxPool, Node, Relu, Softmax

BLOCKS = {  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection: table 1 of the paper
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLS_AFTER = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}


def nodes(classes: int = 1000) -> list[Node]:
    """The network up to ``prob``."""
    net: list[Node] = [
        *_conv("conv1/7x7_s2", INPUT, 64, 7, 2),
        _max_pool("pool1/3x3_s2", "conv1/relu_7x7"),
        Lrn("pool1/norm1", ("pool1/3x3_s2",)),
        *_conv("conv2/3x3_reduce", "pool1/norm1", 64, 1),
        *_conv("conv2/3x3", "conv2/relu_3x3_reduce", 192, 3),
        Lrn("conv2/norm2", ("conv2/relu_3x3",)),
        _max_pool("pool2/3x3_s2", "conv2/norm2"),
    ]
    x = "pool2/3x3_s2"
    for block, widths in BLOCKS.items():
        net += _inception(f"inception_{block}", x, widths)
        x = f"inception_{block}/output"
        if block in POOLS_AFTER:
            net.append(_max_pool(POOLS_AFTER[block], x))
            x = POOLS_AFTER[block]
    return [*net,
            AvgPool("pool5/7x7_s1", (x,), (7, 7)),
            Conv("loss3/classifier", ("pool5/7x7_s1",), out_channels=classes),
            Softmax("prob", ("loss3/classifier",))]


def _conv(name: str, source: str, channels: int, kernel: int, stride: int = 1) -> list[Node]:
    block, _, layer = name.rpartition("/")
    padding = (kernel // 2, kernel // 2)
    relu = f"{block}/relu_{layer.removesuffix('_s2')}"
    return [Conv(name, (source,), (kernel, kernel), stride, padding, out_channels=channels), Relu(relu, (name,))]


def _max_pool(name: str, source: str) -> Node:
    return MaxPool(name, (source,), (3, 3), 2, ceil=True)


def _inception(name: str, x: str, widths: tuple[int, ...]) -> list[Node]:
    one, three_reduce, three, five_reduce, five, projection = widths
    return [
        *_conv(f"{name}/1x1", x, one, 1),
        *_conv(f"{name}/3x3_reduce", x, three_reduce, 1),
        *_conv(f"{name}/3x3", f"{name}/relu_3x3_reduce", three, 3),
        *_conv(f"{name}/5x5_reduce", x, five_reduce, 1),
        *_conv(f"{name}/5x5", f"{name}/relu_5x5_reduce", five, 5),
        MaxPool(f"{name}/pool", (x,), (3, 3), 1, (1, 1)),
        *_conv(f"{name}/pool_proj", f"{name}/pool", projection, 1),
        Concat(f"{name}/output", tuple(f"{name}/relu_{part}" for part in ("1x1", "3x3", "5x5", "pool_proj"))),
    ]
