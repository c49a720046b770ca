"""What each kind of node does: forward, and the gradient at its inputs. Plain ATen operations, no autograd.

``forward(node, inputs) -> (output, saved)`` and ``backward(node, gradient, saved) -> gradients at the inputs``.
Autograd would give the same numbers (the tests compare), but its average pool's gradient costs four times the pool, it
fills and adds where a slice is enough, and an engine that runs forward graphs only could not execute it.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models import lrn
from streamdream.models.nodes import AvgPool, Concat, Lrn, MaxPool, Node, Relu, Softmax, Window

aten = torch.ops.aten
Forward = Callable[[Any, list[Tensor]], tuple[Tensor, Any]]
Backward = Callable[[Any, Tensor, Any], list[Tensor]]


def _relu(node: Relu, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    y = F.relu(inputs[0])
    return y, y


def _relu_back(node: Relu, gradient: Tensor, y: Tensor) -> list[Tensor]:
    return [aten.threshold_backward(gradient, y, 0)]


def pad_same(node: Window, x: Tensor, value: float) -> Tensor:
    """``x`` with TensorFlow's SAME padding around it."""
    return F.pad(x, node.pads(*x.shape[2:]), value=value) if node.same else x


def crop_same(node: Window, gradient: Tensor, height: int, width: int) -> Tensor:
    """The gradient without the part that fell on the padding."""
    left, _, top, _ = node.pads(height, width) if node.same else (0, 0, 0, 0)
    return gradient[:, :, top:top + height, left:left + width] if node.same else gradient


def _max_pool(node: MaxPool, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    x = pad_same(node, inputs[0], torch.finfo(inputs[0].dtype).min)
    padding = (0, 0) if node.same else node.padding
    stride = (node.stride, node.stride)
    y, indices = aten.max_pool2d_with_indices(x, node.kernel, stride, padding, (1, 1), node.ceil)
    return y, (x, indices, inputs[0].shape[2:])


def _max_pool_back(node: MaxPool, gradient: Tensor, saved: Any) -> list[Tensor]:
    x, indices, size = saved
    padding = (0, 0) if node.same else node.padding
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    below = aten.max_pool2d_with_indices_backward(gradient, x, node.kernel, (node.stride, node.stride), padding, (1, 1),
                                                  node.ceil, indices)
    return [crop_same(node, below, *size)]


def _avg_pool(node: AvgPool, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    x = inputs[0]
    return F.avg_pool2d(x, node.kernel, node.stride, node.padding, node.ceil, node.count_padding), x


def _avg_pool_back(node: AvgPool, gradient: Tensor, x: Tensor) -> list[Tensor]:
    if not node.averages_same:
        return [aten.avg_pool2d_backward(gradient, x, node.kernel, (node.stride, node.stride), node.padding, node.ceil,
                                         node.count_padding, None)]
    if not node.count_padding:
        covered = torch.ones(1, 1, *gradient.shape[2:], dtype=gradient.dtype, device=gradient.device)
        gradient = gradient / F.avg_pool2d(covered, node.kernel, 1, node.padding)  # the part inside the picture
    return [F.avg_pool2d(gradient, node.kernel, 1, node.padding)]  # a stride-1 mean is its own adjoint


def _lrn(node: Lrn, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    return lrn.forward(inputs[0], node)


def _lrn_back(node: Lrn, gradient: Tensor, saved: Any) -> list[Tensor]:
    return [lrn.backward(gradient, saved, node)]


def _concat(node: Concat, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    return torch.cat(inputs, 1), [x.shape[1] for x in inputs]


def _concat_back(node: Concat, gradient: Tensor, widths: list[int]) -> list[Tensor]:
    return list(torch.split(gradient, widths, 1))


def _softmax(node: Softmax, inputs: list[Tensor]) -> tuple[Tensor, Any]:
    y = torch.softmax(inputs[0], 1)
    return y, y


def _softmax_back(node: Softmax, gradient: Tensor, y: Tensor) -> list[Tensor]:
    return [y * (gradient - (gradient * y).sum(1, keepdim=True))]


OPERATIONS: dict[type[Node], tuple[Forward, Backward]] = {
    Relu: (_relu, _relu_back),
    MaxPool: (_max_pool, _max_pool_back),
    AvgPool: (_avg_pool, _avg_pool_back),
    Lrn: (_lrn, _lrn_back),
    Concat: (_concat, _concat_back),
    Softmax: (_softmax, _softmax_back),
}
"""Of every node but convolutions, which have weights: ``convolution.Convolution``."""
