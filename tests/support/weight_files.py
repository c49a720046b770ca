"""Random weights, and files of every kind that hold them.

The protobuf ones are written byte by byte, so that the reader's field numbers are checked against Caffe's and
TensorFlow's documentation and not against themselves.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streamdream import models
from streamdream.models.weights.random import random_weights

Stored = dict[str, Tensor]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes | str | int) -> bytes:
    """One field on the wire: a whole number, or anything with a length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def floats(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().astype("<f4").tobytes()


def blob(tensor: Tensor) -> bytes:
    """caffe.proto: BlobProto.shape = 7 with BlobShape.dim = 1 (packed), data = 5 (packed)."""
    dims = b"".join(varint(size) for size in tensor.shape)
    return field(7, field(1, dims)) + field(5, floats(tensor))


def old_blob(tensor: Tensor) -> bytes:
    """Before 2014-10: num, channels, height, width = 1..4, always four."""
    shape = [1] * (4 - tensor.dim()) + list(tensor.shape)
    return b"".join(field(number, size) for number, size in enumerate(shape, 1)) + field(5, floats(tensor))


def caffemodel(stored: Stored, old: bool = False) -> bytes:
    """NetParameter.layer = 100 (name = 1, type = 2, blobs = 7); old: layers = 2 (name = 4, type = 5, blobs = 6)."""
    net = field(1, "GoogleNet")
    for name in layers_of(stored):
        weight, bias = stored[f"{name}.weight"], stored[f"{name}.bias"]
        if name.startswith("loss3"):
            weight = weight[:, :, 0, 0]  # InnerProduct
        if old:
            net += field(2, field(4, name) + field(5, 4) + field(6, old_blob(weight)) + field(6, old_blob(bias)))
        else:
            net += field(100, field(1, name) + field(2, "Convolution") + field(7, blob(weight)) + field(7, blob(bias)))
    return net


def layers_of(stored: Stored) -> list[str]:
    return [key.removesuffix(".weight") for key in stored if key.endswith(".weight")]


def graph_constant(name: str, tensor: Tensor, content: bool = True) -> bytes:
    """GraphDef.node = 1: name = 1, op = 2, attr = 5 {key = 1, value = 2}; AttrValue: type = 6, tensor = 8; TensorProto:
    dtype = 1 (DT_FLOAT 1), tensor_shape = 2 {dim = 2 {size = 1}}, tensor_content = 4, float_val = 5."""
    shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
    value = field(1, 1) + field(2, shape) + field(4 if content else 5, floats(tensor))
    attributes = (field(5, field(1, "dtype") + field(2, field(6, 1)))
                  + field(5, field(1, "value") + field(2, field(8, value))))
    return field(1, field(1, name) + field(2, "Const") + attributes)


def to_tensorflow(tensor: Tensor) -> Tensor:
    return tensor.permute(2, 3, 1, 0) if tensor.dim() == 4 else tensor


def frozen_graph(stored: Stored) -> bytes:
    graph = field(1, field(1, "input") + field(2, "Placeholder"))
    for name in layers_of(stored):
        weight, bias, short = stored[f"{name}.weight"], stored[f"{name}.bias"], name.removesuffix("_pre_activation")
        weight = weight[:, :, 0, 0].t() if name.startswith("softmax") else to_tensorflow(weight)
        graph += graph_constant(f"{short}_w", weight) + graph_constant(f"{short}_b", bias, content=False)
    return graph


def write_h5(path: Path, stored: Stored, first: int = 1) -> None:
    """As Keras saves: a group a layer, in it LAYER/kernel:0; the numbers go on from ``first``, 0 has none."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for key, tensor in stored.items():
            layer, _, kind = key.partition(".")
            number = int(layer.rpartition("_")[2]) - 1 + first
            layer = layer.rpartition("_")[0] + (f"_{number}" if number else "")
            file.require_group(layer).create_dataset(f"{layer}/{kind}:0", data=to_tensorflow(tensor).numpy())


def keras_tensors(seed: int = 0) -> Stored:
    """What Keras's Inception v3 stores: kernels, and batch norms without gamma."""
    generator = torch.Generator().manual_seed(seed)
    stored: Stored = {}
    for key, tensor in random_weights(models.get("keras_inception_v3").nodes()).items():
        layer, _, kind = key.partition(".")
        norm, count = layer.replace("conv2d", "batch_normalization"), tensor.shape[0]
        if kind == "weight":
            stored[f"{layer}.kernel"] = tensor
            stored[f"{norm}.beta"] = torch.randn(count, generator=generator) * 0.1
            stored[f"{norm}.moving_mean"] = torch.randn(count, generator=generator) * 0.1
            stored[f"{norm}.moving_variance"] = torch.rand(count, generator=generator) + 0.5
    return stored


def write_pth(path: Path, stored: Stored, legacy: bool = False) -> None:
    torch.save(stored, path, _use_new_zipfile_serialization=not legacy)


WRITERS: dict[str, Callable[[Path, Stored], object]] = {
    "new.caffemodel": lambda path, stored: path.write_bytes(caffemodel(stored)),
    "old.caffemodel": lambda path, stored: path.write_bytes(caffemodel(stored, old=True)),
    "neural-dream.pth": lambda path, stored: write_pth(
        path, {key.replace("/", "_"): tensor for key, tensor in stored.items()}, legacy=True),
    "wrapped.pth": lambda path, stored: torch.save({"epoch": 3, "state_dict": {
        f"module.{key.replace('/', '_')}": tensor for key, tensor in stored.items()}}, path),
    "own.safetensors": lambda path, stored: save_file(stored, path),
    "half.safetensors": lambda path, stored: save_file({key: t.half() for key, t in stored.items()}, path),
}
