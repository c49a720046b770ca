"""The straightforward step, as other projects run it: PyTorch's layers and autograd in float32.

Where two values differ only by rounding, the order of summation decides which of them passes a pool or a ReLU, and two
correct steps then differ by up to 1 %. So a step is compared with autograd through the same forward pass, one of
``FORWARDS``, to 1e-5 on every picture. The forward passes are compared with each other in float64.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.ascent import step
from streamdream.backends import graph
from streamdream.errors import UnknownName
from streamdream.models import lrn
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
    project_before_pooling,
    subgraph,
)
from streamdream.models.operations import pad_same

if TYPE_CHECKING:
    from streamdream.backends import Step, StepSpec
    from streamdream.models import Model

FORWARDS = {
    "written": "PyTorch's layers, in the order of the node table",
    "eager": "as in models.network: 1x1 convolutions before average pools, its own LRN",
    "graph": "as in the recorded graph: average pools are convolutions",
}


class Plain:
    """Has the interface of a backend, but is not registered as one, as it is slow.

    ``forward`` is a key of FORWARDS. Raises UnknownName.
    """

    name, precision, reason = "plain autograd", "fp32", "PyTorch's layers and autograd, unoptimised"

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype = torch.float32,
                 forward: str = "written") -> None:
        if forward not in FORWARDS:
            raise UnknownName("forward", forward, FORWARDS)
        self.model, self.device, self._dtype, self._forward = model, device, dtype, forward
        self._weights = {name: weight.to(device, dtype) for name, weight in model.load_weights().items()}

    def compile(self, spec: StepSpec) -> Step:
        nodes, terms = subgraph(self.model.nodes(), spec.objective.taps), spec.objective.terms
        if self._forward != "written":
            nodes = project_before_pooling(nodes, tuple(sorted(spec.objective.taps)))

        def take_step(picture: Tensor, step_size: float, targets: Any = ()) -> Tensor:
            leaf = picture.detach().requires_grad_(True)
            values = {INPUT: self.model.to_input(leaf).to(self._dtype)}
            for node in nodes:
                values[node.name] = self._run(node, [values[name] for name in node.inputs])
            features = {name: values[name] for name in (INPUT, *spec.objective.taps)}
            gradients = [torch.autograd.grad(term.value(features, ()), leaf, retain_graph=True)[0]
                         for term, _ in terms]
            return step.ascend(picture, gradients, terms, step_size, spec.shape)

        return take_step

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        if self._forward != "written" and isinstance(node, Lrn):
            return _own_lrn(node, inputs[0])
        if self._forward == "graph" and isinstance(node, AvgPool):
            result: Tensor = graph.average(inputs[0], node.kernel, (node.stride, node.stride), node.padding, node.ceil,
                                           node.count_padding)
            return result
        return run(node, inputs, self._weights)


def run(node: Node, inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Compute one node with PyTorch's layer of that type."""
    operation: Callable[[Any, Tensor, Mapping[str, Tensor]], Tensor] = OPERATIONS.get(type(node), _missing)
    return torch.cat(inputs, 1) if isinstance(node, Concat) else operation(node, inputs[0], weights)


def _missing(node: Node, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    raise NotImplementedError(type(node).__name__)


def _conv(node: Conv, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    x, padding = pad_same(node, x, 0.0), (0, 0) if node.same else node.padding
    return F.conv2d(x, weights[f"{node.weights}.weight"], weights[f"{node.weights}.bias"], node.stride, padding)


def _max_pool(node: MaxPool, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    x, padding = pad_same(node, x, torch.finfo(x.dtype).min), (0, 0) if node.same else node.padding
    return F.max_pool2d(x, node.kernel, node.stride, padding, ceil_mode=node.ceil)


def _avg_pool(node: AvgPool, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return F.avg_pool2d(x, node.kernel, node.stride, node.padding, node.ceil, node.count_padding)


def _lrn(node: Lrn, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    size = 2 * node.radius + 1
    return F.local_response_norm(x, size, node.scale * size, node.beta, node.k)


def _own_lrn(node: Lrn, x: Tensor) -> Tensor:
    """Compute the values of ``models.lrn``, without operations in place."""
    kernel = lrn.band(x.shape[1], node.radius, node.scale, x.dtype, x.device)
    sums = F.conv2d(x * x, kernel, torch.full((x.shape[1],), node.k, dtype=x.dtype, device=x.device))
    return x * ((torch.sqrt(sums) * sums).rsqrt() if node.beta == 0.75 else sums**-node.beta)


OPERATIONS: dict[type[Node], Callable[[Any, Tensor, Mapping[str, Tensor]], Tensor]] = {
    Conv: _conv, MaxPool: _max_pool, AvgPool: _avg_pool, Lrn: _lrn,
    Relu: lambda node, x, weights: F.relu(x), Softmax: lambda node, x, weights: F.softmax(x, 1),
}
