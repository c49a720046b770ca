"""The module that runs the part of a node table that the taps need."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamdream.models.lrn import normalize
from streamdream.models.nodes import (
    INPUT,
    AvgPool,
    Concat,
    Conv,
    Lrn,
    MaxPool,
    Node,
    Relu,
    Softmax,
    needed,
    project_before_pooling,
)


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
        self.dtype = dtype
        self._overwritten = self._find_overwritten()
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
        x = inputs[0]
        match node:
            case Conv():
                weight, bias = self._weights[node.name]
                if node.same:
                    x = F.pad(x, node.pads(*x.shape[2:]))
                return F.conv2d(x, weight, bias, node.stride, (0, 0) if node.same else node.padding)
            case Relu():
                return F.relu(x, inplace=node.inputs[0] in self._overwritten)
            case MaxPool():
                if node.same:
                    padded = F.pad(x, node.pads(*x.shape[2:]), value=torch.finfo(x.dtype).min)
                    return F.max_pool2d(padded, node.kernel, node.stride)
                return F.max_pool2d(x, node.kernel, node.stride, node.padding, ceil_mode=node.ceil)
            case AvgPool():
                return average(x, node)
            case Lrn():
                return normalize(x, node)
            case Concat():
                return torch.cat(inputs, 1)
            case Softmax():
                return torch.softmax(x, 1)
        raise TypeError(f"no operation for {type(node).__name__}")


def average(x: Tensor, node: AvgPool) -> Tensor:
    """The mean of each window of ``x``."""
    if node.averages_same:
        result: Tensor = _SameAverage.apply(x, node)  # type: ignore[no-untyped-call]
        return result
    return F.avg_pool2d(x, node.kernel, node.stride, node.padding, node.ceil, node.count_padding)


class _SameAverage(torch.autograd.Function):
    """A stride-1 average pool whose gradient is one, too: autograd's own costs four times its forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, node: AvgPool) -> Tensor:
        ctx.node = node
        return F.avg_pool2d(x, node.kernel, 1, node.padding, count_include_pad=node.count_padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        node, (gradient,) = ctx.node, gradients
        if not node.count_padding:
            covered = torch.ones(1, 1, *gradient.shape[2:], dtype=gradient.dtype, device=gradient.device)
            gradient = gradient / F.avg_pool2d(covered, node.kernel, 1, node.padding)  # the part inside the picture
        return F.avg_pool2d(gradient, node.kernel, 1, node.padding), None
