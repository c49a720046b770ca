"""The registry of networks: one row each, for embedded and for fetched weights.

``MODELS["inception_v3"].load_weights()`` gives float32 tensors; ``row.taps()`` what can be dreamed, whether or not the
weights are here. Adding a network is one file with its node table and one row here.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from streamdream.errors import ModelError, UnknownName
from streamdream.models.model import (
    EMBEDDED_INCEPTION_V3,
    EMBEDDED_INCEPTION_V3_SHA256,
    Model,
    Preprocessing,
    WeightSource,
    caffe_input,
    find_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models.nodes import Node


def get(name: str) -> Model:
    """The row of that name. Raises UnknownName with the close ones."""
    if name not in MODELS:
        raise UnknownName("model", name, MODELS)
    return MODELS[name]


def _table(module: str, function: str = "nodes", *arguments: object) -> Callable[[], list[Node]]:
    """A node table, whose file is imported when it is asked for."""
    def nodes() -> list[Node]:
        table: list[Node] = getattr(importlib.import_module(f"streamdream.models.{module}"), function)(*arguments)
        return table

    return nodes


@cache
def _inception_v3_weights() -> dict[str, Tensor]:
    from streamdream.models import inception_v3
    from streamdream.models.weights import read_quantized

    return inception_v3.fold_batch_norm(read_quantized(EMBEDDED_INCEPTION_V3, EMBEDDED_INCEPTION_V3_SHA256))


def fetched_weights(name: str) -> Callable[[], dict[str, Tensor]]:
    """A function that loads the fetched weights of that network, once while they stay the same."""
    def load() -> dict[str, Tensor]:
        path = find_weights(name)
        from streamdream.models import weights

        try:
            return weights.load_once(path, MODELS[name], path.stat().st_mtime_ns)
        except ModelError as error:
            raise ModelError(f"{error}; streamdream fetch {name} --again fetches it once more") from None

    return load


def _fetched(name: str, about: str, licence: str, nodes: Callable[[], list[Node]], to_input: Preprocessing,
             layout: str = "plain", *, default_layers: str, sources: tuple[WeightSource, ...]) -> Model:
    return Model(name, about, licence, nodes, fetched_weights(name), to_input, default_layers, sources, layout)


_OLD_CAFFE = "https://github.com/ProGamerGov/pytorch-old-caffemodels/raw/master/"
_PLACES = "https://github.com/ProGamerGov/pytorch-places/raw/master/"
_OLD_TENSORFLOW = "https://github.com/ProGamerGov/pytorch-old-tensorflow-models/raw/master/"
_KERAS = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
_BVLC_SHA1 = "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204"
_KERAS_MD5 = "md5:bcbd6486424b2319ff4ef7d526e38f63"

# Sources with a digest come before those without, and the publisher's own file before a conversion of it.
MODELS: dict[str, Model] = {
    row.name: row
    for row in (
        Model(
            name="inception_v3",
            about="Keras Inception v3, ImageNet, from the picture to mixed5",
            licence="MIT",
            nodes=_table("inception_v3"),
            load_weights=_inception_v3_weights,
            to_input=Preprocessing(),
            default_layers="mixed0[120,90]",  # pebbles: plain on all kinds of footage, and a cheap step
        ),
        _fetched(
            "bvlc_googlenet",
            "BVLC GoogLeNet, ImageNet, Caffe: the network of the pictures of 2015",
            "unrestricted use",
            _table("caffe_googlenet"),
            caffe_input(104, 117, 123),
            default_layers="inception_4c/output",
            sources=(
                WeightSource("http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel", _BVLC_SHA1, 53_533_754),
                WeightSource(
                    "https://www.deepdetect.com/downloads/platform/pretrained/caffe/googlenet/bvlc_googlenet.caffemodel",
                    _BVLC_SHA1,
                    53_533_754,
                ),
                WeightSource(_OLD_CAFFE + "bvlc_googlenet.pth", "git:9038679730b000111aebc5d3baddfe1936bfda0b"),
            ),
        ),
        _fetched(
            "places205_googlenet",
            "GoogLeNet of 205 kinds of places, Caffe: arches and towers",
            "CC BY (stated for its successor)",
            _table("caffe_googlenet", "nodes", 205),
            caffe_input(105.417, 113.753, 116.047),
            default_layers="inception_4c/output",
            sources=(
                WeightSource(_PLACES + "googlenet_places205.pth", "git:70235f7b2dbed879785a02792b37673969eef62f"),
                WeightSource(
                    "http://places.csail.mit.edu/model/googlenet_places205.tar.gz",
                    member="googlelet_places205_train_iter_2400000.caffemodel",
                ),
                WeightSource(
                    "https://s3-us-west-2.amazonaws.com/crowsonkb-deep-dream/"
                    "googlelet_places205_train_iter_2400000.caffemodel"
                ),
            ),
        ),
        _fetched(
            "places365_googlenet",
            "GoogLeNet of 365 kinds of places, Caffe",
            "CC BY",
            _table("caffe_googlenet", "nodes", 365),
            caffe_input(104.051, 112.514, 116.676),
            default_layers="inception_4c/output",
            sources=(
                WeightSource(_PLACES + "googlenet_places365.pth", "git:7f83954afe4e2035ada302e78e0932a5166fc911"),
                WeightSource("http://places2.csail.mit.edu/models_places365/googlenet_places365.caffemodel"),
            ),
        ),
        _fetched(
            "cars_googlenet",
            "GoogLeNet of 431 car models (CompCars), Caffe",
            "non-commercial research and education only",
            _table("cars_googlenet"),
            caffe_input(104, 117, 123),
            default_layers="inception_4c_output",
            sources=(
                WeightSource(
                    _OLD_CAFFE + "googlenet_finetune_web_cars.pth", "git:b3d16a71547919bc9d0d419f9fdc603b8311f3a5"
                ),
                WeightSource(
                    "http://mmlab.ie.cuhk.edu.hk/datasets/comp_cars/googlenet_finetune_web_car_iter_10000.caffemodel"
                ),
            ),
        ),
        _fetched(
            "sos_googlenet",
            "GoogLeNet that counts salient objects (Zhang et al. 2015), Caffe",
            "unknown: its authors named none",
            _table("caffe_googlenet", "nodes", 5),
            caffe_input(104, 117, 123),
            default_layers="inception_4c/output",
            sources=(
                WeightSource(_OLD_CAFFE + "GoogleNet_SOS.pth", "git:b4a17932b96abc959b32f5f55caf61cfe73fa77e"),
                WeightSource("http://www.cs.bu.edu/groups/ivc/data/SOS/GoogleNet_SOS.caffemodel"),
            ),
        ),
        _fetched(
            "inception5h",
            "TensorFlow's GoogLeNet, ImageNet: of its DeepDream tutorial and lucid",
            "Apache-2.0",
            _table("inception5h"),
            Preprocessing(127.5, (10.5, 10.5, 10.5)),
            "inception5h",
            default_layers="mixed4c",
            sources=(  # 0..255 minus 117
                WeightSource(
                    "https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
                    "sha256:d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",
                    50_000_000,
                    "tensorflow_inception_graph.pb",
                ),
                WeightSource(_OLD_TENSORFLOW + "inception5h.pth", "git:119f77db85c8352960933e025312b507d9a96ed7"),
            ),
        ),
        _fetched(
            "keras_inception_v3",
            "Keras Inception v3, ImageNet, to mixed10",
            "MIT",
            _table("inception_v3", "nodes", "mixed10"),
            Preprocessing(),
            "keras",
            default_layers="mixed0[120,90]",  # pebbles: plain on all kinds of footage, and a cheap step
            sources=(
                WeightSource(
                    f"https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/{_KERAS}",
                    _KERAS_MD5,
                    87_910_968,
                ),
                WeightSource(
                    f"https://github.com/fchollet/deep-learning-models/releases/download/v0.5/{_KERAS}",
                    _KERAS_MD5,
                    87_910_968,
                ),
                WeightSource(_OLD_TENSORFLOW + "inceptionv3_keras.pth", "git:47d8a1a8188feea74ef517294be8aa1d4ba9f70e"),
            ),
        ),
        # torchvision's transform_input takes its ImageNet normalisation back: what the two networks see is [-1, 1]
        _fetched(
            "torchvision_googlenet",
            "torchvision's googlenet, ImageNet: not BVLC's (batch norm, 3x3 for 5x5)",
            "BSD-3-Clause",
            _table("torchvision_nets", "googlenet"),
            Preprocessing(),
            "torchvision",
            default_layers="inception4c",
            sources=(
                WeightSource(
                    "https://download.pytorch.org/models/googlenet-1378be20.pth", "sha256:1378be20", 52_146_733
                ),
            ),
        ),
        _fetched(
            "torchvision_inception_v3",
            "torchvision's inception_v3, ImageNet, to Mixed_7c",
            "BSD-3-Clause",
            _table("torchvision_nets", "inception_v3"),
            Preprocessing(),
            "torchvision",
            default_layers="Mixed_6a",
            sources=(
                WeightSource(
                    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
                    "sha256:0cc3c7bd",
                    108_950_192,
                ),
            ),
        ),
    )
}
