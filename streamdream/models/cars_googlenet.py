"""The GoogLeNet that CompCars fine-tuned on 431 car models (Yang et al. 2015): Caffe's, under its prototxt's own names.

Its prototxt joins with underscores and names the stem otherwise: ``conv1``, ``pool1``, ``norm1``, ``conv2_1x1``, ....
"""
from __future__ import annotations

from dataclasses import replace

from streamdream.models import caffe_googlenet
from streamdream.models.nodes import Node

CLASSES = 431
NAMES = {
    "conv1/7x7_s2": "conv1",
    "conv1/relu_7x7": "relu1",
    "pool1/3x3_s2": "pool1",
    "pool1/norm1": "norm1",
    "conv2/3x3_reduce": "conv2_1x1",
    "conv2/relu_3x3_reduce": "relu_conv2_1x1",
    "conv2/relu_3x3": "relu2_3x3",
    "conv2/norm2": "norm2",
    "pool2/3x3_s2": "pool2",
    "pool3/3x3_s2": "pool3",
    "pool4/3x3_s2": "pool4",
    "pool5/7x7_s1": "pool5",
    "loss3/classifier": "loss3_classifier_model",
}


def nodes() -> list[Node]:
    """The network up to ``prob``."""
    return [replace(node, name=_rename(node.name), inputs=tuple(map(_rename, node.inputs)))
            for node in caffe_googlenet.nodes(CLASSES)]


def _rename(name: str) -> str:
    return NAMES.get(name, name.replace("/", "_"))
