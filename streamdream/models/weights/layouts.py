"""What the tensors of a node are called in the files that exist.

A layout maps a node's name to the names that its weight may have, best first; ``/`` has been replaced by ``_`` on both
sides, because converters do so (Caffe's ``inception_3a/1x1`` is ``inception_3a_1x1.weight`` in a .pth).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BATCH_NORM_EPSILON = 1e-3
"""Of Keras's Inception v3 and of both torchvision networks."""


class InvalidWeights(Exception):
    """A weight file is not what it should be; the text goes on from the file's name: ``is damaged``, ``holds no …``."""


@dataclass(frozen=True)
class TensorNames:
    """Of one node in one kind of file; ``norm`` is its batch norm, if it has one."""

    weight: str
    bias: str = ""
    norm: str = ""


def _plain(name: str) -> tuple[TensorNames, ...]:
    return (TensorNames(f"{name}.weight", f"{name}.bias"),)


def _inception5h(name: str) -> tuple[TensorNames, ...]:
    """``conv2d0_w`` in TensorFlow's graph, ``conv2d0_pre_relu_conv.weight`` in the .pth made of it."""
    short = name.removesuffix("_pre_activation")
    return TensorNames(f"{short}_w", f"{short}_b"), *_plain(f"{name}_pre_relu_conv"), *_plain(f"{name}_matmul")


def _keras(name: str) -> tuple[TensorNames, ...]:
    return (TensorNames(f"{name}.weight", norm=name.replace("conv2d", "batch_normalization")),)


def _torchvision(name: str) -> tuple[TensorNames, ...]:
    return (TensorNames(f"{name}.conv.weight", norm=f"{name}.bn"),)


LAYOUTS: dict[str, Callable[[str], tuple[TensorNames, ...]]] = {
    "plain": _plain,
    "inception5h": _inception5h,
    "keras": _keras,
    "torchvision": _torchvision,
}


def find(stored: Mapping[str, Tensor], layout: str, node: str) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a node, its batch norm folded in; None when the file has no weight for it.

    Raises InvalidWeights when there is a weight without what belongs to it.
    """
    name = node.replace("/", "_")
    for names in (*_plain(name), *LAYOUTS[layout](name)):
        if names.weight in stored:
            if names.bias in stored:
                return stored[names.weight], stored[names.bias]
            if names.norm:
                return _fold(stored, names)
    if f"{name}.weight" in stored:
        raise InvalidWeights(f"is not complete: {node}.bias is missing")
    return None


def _fold(stored: Mapping[str, Tensor], names: TensorNames) -> tuple[Tensor, Tensor]:
    """``y = gamma * (w * x - mean) / sqrt(variance + epsilon) + beta`` as one weight and bias; gamma may be absent."""
    weight = stored[names.weight]
    parts = {kind: stored.get(f"{names.norm}.{kind}") for kind in ("running_var", "running_mean", "bias")}
    parts["weight"] = stored.get(f"{names.norm}.weight", torch.ones(weight.shape[:1]))
    for kind, tensor in parts.items():
        if tensor is None or tensor.shape != weight.shape[:1]:
            state = "is missing" if tensor is None else f"is {list(tensor.shape)}, not {list(weight.shape[:1])}"
            raise InvalidWeights(f"does not fit: {names.norm}.{kind} {state}")
    variance, mean, beta, gamma = (tensor for tensor in parts.values() if tensor is not None)
    scale = gamma / torch.sqrt(variance + BATCH_NORM_EPSILON)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), beta - mean * scale
