"""One function a file format: file -> {name: tensor}, kernels as PyTorch has them (output, input, height, width)."""
from __future__ import annotations

import importlib
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamdream.errors import MissingPackage
from streamdream.models.weights.layouts import InvalidWeights
from streamdream.models.weights.protobuf import read_caffemodel, read_graph

MAX_BYTES = 1 << 30
"""Of all tensors of a file; more than any network here has."""
INSTALL = "pip install 'streamdream[weights]'"
_PROTOBUF = ("google.protobuf", "protobuf")
NEEDS = {".caffemodel": _PROTOBUF, ".pb": _PROTOBUF, ".h5": ("h5py", "h5py")}
"""Formats that need an optional package: its module and its name for pip."""


def read(path: Path, suffix: str) -> dict[str, Tensor]:
    """Every tensor of a weight file in the format ``suffix``, under the file's own names.

    Raises InvalidWeights when it is not what it should be, MissingPackage when its format needs one that is not here.
    """
    check_packages(suffix)
    with path.open("rb") as file:
        _reject_non_weights(file.read(512))
    try:
        tensors = READERS[suffix](path)
    except (InvalidWeights, MissingPackage):
        raise
    except Exception as error:  # whatever the parsers of others meet in a hostile file
        raise InvalidWeights(f"is damaged or truncated: {error}") from None
    if not tensors:
        raise InvalidWeights(f"holds nothing that a {suffix} file with weights would hold")
    return tensors


def check_packages(suffix: str) -> None:
    """Raises MissingPackage when files of this format cannot be read here."""
    module, package = NEEDS.get(suffix, ("torch", "torch"))
    try:
        importlib.import_module(module)
    except ImportError:
        raise MissingPackage(f"{suffix} files need the package {package}: {INSTALL}") from None


def _reject_non_weights(start: bytes) -> None:
    head = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not start:
        raise InvalidWeights("is empty")
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise InvalidWeights("is a web page, not weights: its link led to a message, a login or a list of files")
    if head.startswith(b"version https://git-lfs"):
        raise InvalidWeights("is a Git LFS pointer, not the weights: git lfs pull brings them")


def read_pth(path: Path) -> dict[str, Tensor]:
    """A PyTorch state dict; only tensors are read, code in it is never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: it reads the file or it does not
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported" in str(error).lower() and "global" in str(error).lower():
            raise InvalidWeights("is refused: besides tensors it holds code that would run when it is loaded") from None
        raise InvalidWeights("is damaged, or not a PyTorch file") from None
    except Exception:  # its text is pages long
        raise InvalidWeights("is damaged or truncated: PyTorch cannot read it") from None
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict):
        raise InvalidWeights(f"holds a {type(stored).__name__}, not named tensors")
    tensors = {str(key).removeprefix("module."): value for key, value in stored.items() if isinstance(value, Tensor)}
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InvalidWeights(f"is damaged: {key} is larger than what is stored of it")
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """As written by ``safetensors.torch.save_file``."""
    from safetensors.torch import load_file

    return load_file(path)


_KERAS_KINDS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
                "moving_mean": "running_mean", "moving_variance": "running_var"}


def read_h5(path: Path) -> dict[str, Tensor]:
    """Keras's weights: ``conv2d_7/kernel:0`` -> ``conv2d_7.weight``, ``batch_normalization_7/beta:0`` -> ``….bias``."""
    import h5py

    tensors: dict[str, Tensor] = {}
    total = 0

    def visit(name: str, item: Any) -> None:
        *_, layer, kind = ("", *name.split("/"))
        kind = kind.partition(":")[0]
        if isinstance(item, h5py.Dataset) and kind in _KERAS_KINDS and item.dtype.kind == "f":
            nonlocal total
            total += item.nbytes
            if total > MAX_BYTES:  # nothing of it need be stored, or it is compressed
                raise InvalidWeights(f"is damaged: {name} would make it larger than {MAX_BYTES >> 20} MB")
            if item.external or item.is_virtual:
                raise InvalidWeights(f"is refused: {name} lies in another file")
            tensors[f"{layer}.{_KERAS_KINDS[kind]}"] = from_tensorflow(torch.from_numpy(item[()]))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return _renumber(tensors)


def _renumber(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers counted from 1: Keras counts on where an earlier model stopped, and the first may have no number."""
    pattern = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?\.(\w+)")
    numbered = [(match[1], int(match[2] or 0), match[3], tensor) for key, tensor in tensors.items()
                if (match := pattern.fullmatch(key))]
    first = {kind: min(number for other, number, *_ in numbered if other == kind) for kind, *_ in numbered}
    return {f"{kind}_{number - first[kind] + 1}.{part}": tensor for kind, number, part, tensor in numbered}


def read_pb(path: Path) -> dict[str, Tensor]:
    """The constants of a frozen TensorFlow graph."""
    return {name: from_tensorflow(tensor) for name, tensor in read_graph(path).items()}


def from_tensorflow(tensor: Tensor) -> Tensor:
    """Height, width, input, output -> output, input, height, width; input, output -> output, input."""
    return tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.t() if tensor.dim() == 2 else tensor


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": read_safetensors,
    ".caffemodel": read_caffemodel,
    ".pth": read_pth,
    ".pt": read_pth,
    ".pb": read_pb,
    ".h5": read_h5,
}
