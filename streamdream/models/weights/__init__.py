"""Reading weight files. Nothing is ever unpickled, and whatever a file claims is checked against the node table.

    file ──readers.read──▶ {its own names: tensor} ──layouts.find──▶ shapes ──▶ {NODE.weight: OIHW, NODE.bias: O}
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from streamdream.errors import ModelError
from streamdream.models.nodes import INPUT, Concat, Conv, Node
from streamdream.models.weights.layouts import InvalidWeights, find
from streamdream.models.weights.readers import read

if TYPE_CHECKING:
    from streamdream.models import Model


class Weights(dict[str, Tensor]):
    """``NODE.weight`` [O, I, H, W] and ``NODE.bias`` [O], float32; what a file does not hold is refused when asked for.

    Converted files often lack the classifier; everything below it can be dreamed all the same.
    """

    def __init__(self, tensors: Mapping[str, Tensor], file: str) -> None:
        super().__init__(tensors)
        self.file = file

    def __missing__(self, key: str) -> Tensor:
        raise ModelError(f"{self.file} holds no {key.rpartition('.')[0]}; dream a lower layer, or fetch another file")


def load(path: Path, model: Model, suffix: str = "", name: str = "") -> Weights:
    """The weights of ``model`` from a file; ``suffix`` and ``name`` count instead of the path's where they are given.

    Raises ModelError with the first bad tensor in one line, or MissingPackage.
    """
    name = name or path.name
    try:
        return Weights(match_to_nodes(read(path, suffix or path.suffix.lower()), model), name)
    except InvalidWeights as error:
        raise ModelError(f"{name} {error}") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


@lru_cache(maxsize=2)
def load_once(path: Path, model: Model, changed: int) -> Weights:
    """As ``load``, cached while the file is the same; ``changed`` is its time of change."""
    return load(path, model)


def match_to_nodes(stored: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """A file's tensors -> the node table's, all shapes checked, batch norms folded in. Raises InvalidWeights.

    Only what lies above the last block, a classifier, may be missing.
    """
    stored = {key.replace("/", "_"): tensor for key, tensor in stored.items()}
    nodes = model.nodes()
    top = max(place for place, node in enumerate(nodes) if isinstance(node, Concat))
    matched: dict[str, Tensor] = {}
    for place, (node, channels) in enumerate(_with_channels(nodes)):
        if not isinstance(node, Conv):
            continue
        pair = find(stored, model.layout, node.weights)
        if pair is None and place > top:
            continue
        if pair is None:
            raise InvalidWeights(f"does not hold {model.name}: {node.weights}.weight is missing")
        weight, bias = _checked(*pair, (node.out_channels, channels, *node.kernel), node.weights)
        matched |= {f"{node.weights}.weight": weight, f"{node.weights}.bias": bias}
    return matched


def _with_channels(nodes: Iterable[Node]) -> Iterable[tuple[Node, int]]:
    """Every node with the number of channels of its first input."""
    channels = {INPUT: 3}
    for node in nodes:
        incoming = [channels[name] for name in node.inputs]
        channels[node.name] = node.channels(incoming)
        yield node, incoming[0]


def _checked(weight: Tensor, bias: Tensor, shape: tuple[int, ...], name: str) -> tuple[Tensor, Tensor]:
    if weight.dim() == 2:  # a fully connected layer is a 1x1 convolution
        weight = weight[:, :, None, None]
    for kind, tensor, expected in (("weight", weight, shape), ("bias", bias, shape[:1])):
        if tuple(tensor.shape) != expected:
            raise InvalidWeights(f"does not fit: {name}.{kind} is {_size(tensor.shape)}, not {_size(expected)}")
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise InvalidWeights(f"is damaged: {name}.{kind} holds values that are not finite numbers")
    return weight.to(torch.float32).contiguous(), bias.to(torch.float32).contiguous()


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def check_digest(path: Path, sha256: str) -> None:
    """Raises ModelError when the file is missing or not the expected one."""
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"weights {path.name}: {error.strerror}; install streamdream again") from None
    if actual != sha256:
        raise ModelError(f"weights {path.name} are damaged (sha256 {actual[:12]}…, not {sha256[:12]}…); "
                         "install streamdream again")


def read_quantized(path: Path, sha256: str) -> dict[str, Tensor]:
    """8-bit safetensors -> float32 tensors, ``w = q * scale + min`` with one scale and min a tensor.

    Raises ModelError when the file is missing, damaged or lists no scale for a tensor.
    """
    from safetensors import SafetensorError, safe_open

    check_digest(path, sha256)
    try:
        with safe_open(path, "pt") as file:
            scales = json.loads(file.metadata()["scale_and_min"])
            return {key: file.get_tensor(key).to(torch.float32) * scales[key][0] + scales[key][1]
                    for key in file.keys()}  # noqa: SIM118 - not a dict: it cannot be iterated
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"weights {path.name} cannot be read: {error}") from None
