"""Run a node table, as far as the taps need it: forward, and back to the gradient at the picture."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from streamdream.models.convolution import Convolution
from streamdream.models.nodes import INPUT, Conv, Node, Relu, fp32_prefix, project_before_pooling, subgraph
from streamdream.models.operations import OPERATIONS

SEED_PEAK, TINY = 128.0, 1e-30
"""The largest gradient at a tap in fp16, which ends at 65,504: on the way to the picture it grows up to ten times."""
Features = dict[str, Tensor]
"""Tap -> [1, C, h, w], and ``INPUT`` -> the picture as the network sees it."""


class Network:
    """The nodes that ``taps`` need, on one device, in one dtype, channels last.

    ``weights`` maps ``NODE.weight`` (OIHW) and ``NODE.bias`` to float32 tensors. Pictures are [1, 3, H, W] in the
    network's own input range. ``prepare`` False keeps to operations that every engine has.

    In half precision the values of its beginning are float32 all the same, though their gradients are not: rounded, the
    picture and what the first convolution makes of it let other pixels win in the first pool than should. With that, a
    photograph's step at ``mixed3`` has a cosine of 0.981 to 0.996 to float32's in bf16, without it of 0.89 to 0.97.
    """

    def __init__(self, nodes: Iterable[Node], weights: Mapping[str, Tensor], taps: Iterable[str],
                 device: torch.device, dtype: torch.dtype, prepare: bool = True) -> None:
        self.taps = tuple(taps)
        self.nodes = project_before_pooling(subgraph(nodes, self.taps), self.taps)
        self.dtype = dtype
        self._fp32 = fp32_prefix(self.nodes) | {INPUT} if dtype.itemsize < 4 else set()
        fused = self._convolutions_before_relu()
        self._convolutions: dict[str, Convolution] = {}
        for node in self.nodes:
            if isinstance(node, Conv):
                weight = weights[f"{node.weights}.weight"].to(device, memory_format=torch.channels_last)
                self._convolutions[node.name] = Convolution(
                    node, weight, weights[f"{node.weights}.bias"].to(device), dtype, node.name in fused, prepare,
                    fp32=node.name in self._fp32)

    @property
    def nbytes(self) -> int:
        """Of weights, and of what was packed of them for the sizes met so far: it grows."""
        return sum(convolution.nbytes for convolution in self._convolutions.values())

    def _convolutions_before_relu(self) -> set[str]:
        """Convolutions whose output is read by one ReLU and nothing else: it becomes part of them."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return {node.name for node in self.nodes if isinstance(node, Conv) and node.name not in self.taps
                and [type(reader) for reader in readers.get(node.name, [])] == [Relu]}

    def __call__(self, picture: Tensor) -> Features:
        """The features at the taps."""
        with torch.no_grad():
            values, _ = self._forward(picture)
        return {name: values[name] for name in (INPUT, *self.taps)}

    def gradients(self, picture: Tensor, values_of: Callable[[Features], Sequence[Tensor]]) -> list[Tensor]:
        """For each scalar that ``values_of`` makes of the features, its gradient at the picture, in float32 at least.

        In fp16 it is scaled. Callers take only its direction.
        """
        with torch.no_grad():
            values, saved = self._forward(picture)
        watched = {name: values[name].detach() for name in (INPUT, *self.taps)}
        if self.dtype == torch.float16:  # for the gradients, see _scale_seeds
            watched = {name: value.float() for name, value in watched.items()}
        for value in watched.values():
            value.requires_grad_(True)
        with torch.enable_grad():
            scalars = values_of(watched)
        gradients = []
        for number, scalar in enumerate(scalars, 1):
            seeds: Sequence[Tensor | None] = torch.autograd.grad(
                scalar, list(watched.values()), allow_unused=True, retain_graph=number < len(scalars))
            with torch.no_grad():
                if self.dtype == torch.float16:
                    seeds = self._scale_seeds(seeds, values)
                gradient = self._backward(dict(zip(watched, seeds, strict=True)), saved)
            # what follows may be a hundred times as large, which fp16 does not hold
            gradients.append(torch.zeros_like(picture) if gradient is None else
                         gradient.float() if self.dtype.itemsize < 4 else gradient)
        return gradients

    def _forward(self, picture: Tensor) -> tuple[Features, dict[str, Any]]:
        """The value of every node, and what its gradient will need."""
        dtype = torch.float32 if INPUT in self._fp32 else self.dtype
        values: Features = {INPUT: picture.to(dtype, memory_format=torch.channels_last)}
        saved: dict[str, Any] = {}
        for node in self.nodes:
            inputs = [values[name] if node.name in self._fp32 else values[name].to(self.dtype)
                      for name in node.inputs]
            if isinstance(node, Conv):
                values[node.name], saved[node.name] = self._convolutions[node.name].forward(inputs[0])
            elif self._is_fused(node):
                values[node.name] = inputs[0]
            else:
                values[node.name], saved[node.name] = OPERATIONS[type(node)][0](node, inputs)
        return values, saved

    def _backward(self, seeds: dict[str, Tensor | None], saved: dict[str, Any]) -> Tensor | None:
        """From gradients at the taps down to the picture; None where nothing reads it."""
        # contiguous: operations may write into what they are given, which an expanded seed would not survive
        gradients = {name: seed.contiguous(memory_format=torch.channels_last)
                     for name, seed in seeds.items() if seed is not None}
        for node in reversed(self.nodes):
            gradient = gradients.pop(node.name, None)
            if gradient is None:
                continue
            if isinstance(node, Conv):
                below = [self._convolutions[node.name].backward(gradient, saved[node.name])]
            elif self._is_fused(node):
                below = [gradient]
            else:
                gradient = gradient.float() if node.name in self._fp32 else gradient
                below = OPERATIONS[type(node)][1](node, gradient, saved[node.name])
            for name, part in zip(node.inputs, below, strict=True):
                gradients[name] = gradients[name] + part if name in gradients else part
        return gradients.get(INPUT)

    def _scale_seeds(self, seeds: Sequence[Tensor | None], values: Features) -> list[Tensor | None]:
        """Scale the gradients at INPUT and the taps, to a peak of SEED_PEAK in each picture; in the type of the values.

        A mean over 300,000 features has gradients of 1e-6 and less, which fp16 would round to nothing. A channel that
        is dreamed strongly has gradients of a thousand times the mean, with which the layers below would run over.
        """
        peaks = [seed.abs().amax((1, 2, 3), keepdim=True) for seed in seeds if seed is not None]
        if not peaks:
            return list(seeds)
        scale = SEED_PEAK / torch.cat(peaks, 1).amax(1, keepdim=True).clamp(min=TINY)
        return [None if seed is None else (seed * scale).to(values[name].dtype)
                for name, seed in zip((INPUT, *self.taps), seeds, strict=True)]

    def _is_fused(self, node: Node) -> bool:
        """Whether the node is a ReLU that is part of its convolution."""
        below = self._convolutions.get(node.inputs[0])
        return isinstance(node, Relu) and below is not None and below.fused_relu
