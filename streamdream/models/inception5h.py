"""Inception5h, the GoogLeNet that TensorFlow's DeepDream tutorial and lucid dream with, under its graph's own names.

Widths as the graph stores them, two of which differ from the paper's: mixed4a's 3x3 has 204 channels and mixed5a's 5x5
bottleneck 48. Its LRN is TensorFlow's: depth_radius 5, bias 2, alpha 1e-4, beta 0.5, so 11 channels and no division
of alpha. ``NAME_pre_relu`` is a convolution before ReLU, ``NAME`` after it. Input is RGB 0..255 minus 117.
"""
from __future__ import annotations

from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, Lrn, MaxPool, Node, Relu, Softmax

BLOCKS = {  # 1x1, 3x3 bottleneck, 3x3, 5x5 bottleneck, 5x5, pool reduce
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 204, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 48, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLS_AFTER = {"3b": "maxpool4", "4e": "maxpool10"}
CLASSES = 1008


def nodes() -> list[Node]:
    """The network up to ``softmax2``."""
    net: list[Node] = [
        *_conv("conv2d0", INPUT, 64, 7, 2),
        _max_pool("maxpool0", "conv2d0"),
        _lrn("localresponsenorm0", "maxpool0"),
        *_conv("conv2d1", "localresponsenorm0", 64, 1),
        *_conv("conv2d2", "conv2d1", 192, 3),
        _lrn("localresponsenorm1", "conv2d2"),
        _max_pool("maxpool1", "localresponsenorm1"),
    ]
    x = "maxpool1"
    for block, widths in BLOCKS.items():
        name = f"mixed{block}"
        net += _mixed(name, x, widths)
        x = name
        if block in POOLS_AFTER:
            net.append(_max_pool(POOLS_AFTER[block], x))
            x = POOLS_AFTER[block]
    return [*net,
            AvgPool("avgpool0", (x,), (7, 7)),
            Conv("softmax2_pre_activation", ("avgpool0",), out_channels=CLASSES),
            Softmax("softmax2", ("softmax2_pre_activation",))]


def _conv(name: str, source: str, channels: int, kernel: int, stride: int = 1) -> list[Node]:
    before = f"{name}_pre_relu"
    return [Conv(before, (source,), (kernel, kernel), stride, same=True, out_channels=channels, stored_as=name),
            Relu(name, (before,))]


def _max_pool(name: str, source: str, stride: int = 2) -> Node:
    return MaxPool(name, (source,), (3, 3), stride, same=True)


def _lrn(name: str, source: str) -> Node:
    return Lrn(name, (source,), radius=5, scale=1e-4, beta=0.5, k=2.0)


def _mixed(name: str, x: str, widths: tuple[int, ...]) -> list[Node]:
    one, three_reduce, three, five_reduce, five, reduce = widths
    return [
        *_conv(f"{name}_1x1", x, one, 1),
        *_conv(f"{name}_3x3_bottleneck", x, three_reduce, 1),
        *_conv(f"{name}_3x3", f"{name}_3x3_bottleneck", three, 3),
        *_conv(f"{name}_5x5_bottleneck", x, five_reduce, 1),
        *_conv(f"{name}_5x5", f"{name}_5x5_bottleneck", five, 5),
        _max_pool(f"{name}_pool", x, 1),
        *_conv(f"{name}_pool_reduce", f"{name}_pool", reduce, 1),
        Concat(name, tuple(f"{name}_{part}" for part in ("1x1", "3x3", "5x5", "pool_reduce"))),
    ]
