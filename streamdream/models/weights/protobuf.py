"""Caffe's ``.caffemodel`` and TensorFlow's frozen ``.pb``, through the protobuf library.

Only the messages on the way to the weights are described, with the field numbers of caffe.proto and of TensorFlow's
graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto. Packed arrays of floats are declared
as bytes, which is the same on the wire and gives one block of memory instead of millions of Python floats.
"""
from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamdream.models.weights.layouts import InvalidWeights

Fields = dict[str, tuple[int, str]]
"""Field name -> its number and its type: int32, int64, bytes or a message; a * after it means repeated. Names are
bytes, since a damaged one need not be text.
"""

MESSAGES: dict[str, Fields] = {
    "NetParameter": {"name": (1, "bytes"), "layers": (2, "V1LayerParameter*"), "layer": (100, "LayerParameter*")},
    "V1LayerParameter": {"name": (4, "bytes"), "blobs": (6, "BlobProto*")},
    "LayerParameter": {"name": (1, "bytes"), "blobs": (7, "BlobProto*")},
    "BlobProto": {"num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"), "width": (4, "int32"),
                  "data": (5, "bytes*"), "shape": (7, "BlobShape"), "double_data": (8, "bytes*")},
    "BlobShape": {"dim": (1, "int64*")},
    "GraphDef": {"node": (1, "NodeDef*")},
    "NodeDef": {"name": (1, "bytes"), "op": (2, "bytes"), "attr": (5, "Attr*")},
    "Attr": {"key": (1, "bytes"), "value": (2, "AttrValue")},  # one entry of the map
    "AttrValue": {"tensor": (8, "TensorProto")},
    "TensorProto": {"dtype": (1, "int32"), "tensor_shape": (2, "TensorShapeProto"), "tensor_content": (4, "bytes"),
                    "float_val": (5, "bytes*")},
    "TensorShapeProto": {"dim": (2, "Dim*")},
    "Dim": {"size": (1, "int64")},
}
DT_FLOAT = 1
MAX_VALUES = 1 << 26  # of all constants that are written as one number; no network here has as many
MAX_DIMENSIONS = 8  # of a tensor; a layer's has four


@cache
def message(name: str) -> Any:
    """The class of one of MESSAGES. Raises ModuleNotFoundError without the protobuf package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    Field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="streamdream/weights.proto", package="streamdream", syntax="proto2")
    for title, fields in MESSAGES.items():
        described = file.message_type.add(name=title)
        for field, (number, kind) in fields.items():
            label = Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            type_name = f".streamdream.{kind}" if kind in MESSAGES else None
            described.field.add(name=field, number=number, label=label, type_name=type_name,
                                type=Field.Type.Value("TYPE_MESSAGE" if type_name else f"TYPE_{kind.upper()}"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"streamdream.{name}"))


def _parse(path: Path, name: str) -> Any:
    from google.protobuf.message import DecodeError

    parsed = message(name)()
    try:
        parsed.ParseFromString(path.read_bytes())
    except (DecodeError, UnicodeDecodeError, ValueError):
        raise InvalidWeights(f"is damaged or truncated: it is no {name} message") from None
    return parsed


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Caffe's NetParameter, old (``layers``) or new (``layer``) -> ``LAYER.weight``, ``LAYER.bias``."""
    net = _parse(path, "NetParameter")
    tensors: dict[str, Tensor] = {}
    for layer in (*net.layers, *net.layer):
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            key = f"{_text(layer.name)}.{kind}"
            tensors[key] = _tensor(_numbers(blob.data, blob.double_data), _blob_shape(blob), key)
    return tensors


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _blob_shape(blob: Any) -> list[int]:
    if blob.HasField("shape"):
        return list(blob.shape.dim)
    shape = [blob.num, blob.channels, blob.height, blob.width]  # always four, as [1, 1, 1, 64] for a bias
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return shape


def _numbers(floats: Any, doubles: Any = ()) -> np.ndarray[Any, np.dtype[np.float32]]:
    if doubles:
        return np.frombuffer(_whole(doubles, 8), "<f8").astype(np.float32)
    return np.frombuffer(_whole(floats, 4), "<f4").astype(np.float32)  # a copy: a message's bytes cannot be written


def _whole(chunks: Any, size: int) -> bytes:
    joined = b"".join(chunks)
    return joined[:len(joined) // size * size]


def _tensor(numbers: np.ndarray[Any, np.dtype[np.float32]], shape: list[int], what: str) -> Tensor:
    count = _count(shape, what)
    if numbers.size != count:
        raise InvalidWeights(f"is damaged: {what} has {numbers.size} numbers, but its shape {shape} needs {count}")
    return torch.from_numpy(numbers.reshape(shape))


def _count(shape: list[int], what: str) -> int:
    """Numbers of a tensor of that shape, which a file claims."""
    if len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 0 or max(shape, default=1) > MAX_VALUES:
        raise InvalidWeights(f"is damaged: {what} has a shape that no tensor has")
    return math.prod(shape)


def read_graph(path: Path) -> dict[str, Tensor]:
    """The float constants of a frozen TensorFlow GraphDef under their nodes' names, laid out as TensorFlow has them."""
    tensors: dict[str, Tensor] = {}
    repeated = 0
    for node in _parse(path, "GraphDef").node:
        stored = [entry.value.tensor for entry in node.attr if entry.key == b"value"]
        if node.op != b"Const" or not stored or stored[0].dtype != DT_FLOAT:
            continue
        shape = [dim.size for dim in stored[0].tensor_shape.dim]
        numbers = _numbers([stored[0].tensor_content]) if stored[0].tensor_content else _numbers(stored[0].float_val)
        name = _text(node.name)
        if numbers.size == 1:  # TensorFlow writes a constant that is one number everywhere so
            count = _count(shape, name)
            repeated += count
            if repeated > MAX_VALUES:
                raise InvalidWeights(f"is damaged: {name} would be made of more numbers than any network has")
            numbers = np.broadcast_to(numbers, count).copy()
        tensors[name] = _tensor(numbers, shape, name)
    return tensors
