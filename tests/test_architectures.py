"""The node tables against networks that others wrote: onnx's Inception v1, torchvision's two, the papers' tables."""
from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from streamdream import models
from streamdream.errors import UnknownName
from streamdream.models import caffe_googlenet, inception5h, inception_v3, nodes, torchvision_nets, weights
from streamdream.models.network import Network
from streamdream.models.nodes import INPUT, AvgPool, Conv, Lrn, Node
from streamdream.models.weights.random import random_weights

CPU = torch.device("cpu")


def run(table: list[Node], stored: dict[str, Tensor], taps: list[str], picture: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return Network(table, stored, taps, CPU, torch.float32)(picture)


def difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


# --- Caffe's GoogLeNet ------------------------------------------------------------------------------------------------

def light_inception_v1(stored: dict[str, Tensor], size: int) -> Any:
    """The graph that the onnx package brings for its own tests, with these weights, every value an output."""
    onnx = pytest.importorskip("onnx")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / "light_inception_v1.onnx")
    graph = model.graph
    kept = [node for node in graph.node if node.op_type in ("Conv", "Relu", "MaxPool", "LRN", "Concat")]
    names = {name for node in kept for name in node.input}
    for field in (graph.node, graph.initializer, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(kept)
    for key, tensor in stored.items():
        layer, _, kind = key.rpartition(".")
        name = f"{layer}_{kind[0]}_0"
        if name in names:
            graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
    value = onnx.helper.make_tensor_value_info
    graph.input.append(value("data_0", onnx.TensorProto.FLOAT, [1, 3, size, size]))
    graph.output.extend(value(node.output[0], onnx.TensorProto.FLOAT, None) for node in kept)
    model.ir_version = 4  # from here on weights need not be inputs
    return model


def test_caffe_googlenet_equals_onnx_s_inception_v1_at_every_tap() -> None:
    runtime = pytest.importorskip("onnxruntime")
    table = caffe_googlenet.nodes()
    stored = random_weights(table)
    model = light_inception_v1(stored, 221)  # there floor pools, which this graph has, and Caffe's ceil pools agree
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    picture = torch.rand(1, 3, 221, 221, generator=torch.Generator().manual_seed(1)) * 255 - 117
    expected = session.run(None, {"data_0": picture.numpy()})

    below = [node for node in table if node.name not in ("pool5/7x7_s1", "loss3/classifier", "prob")]
    kinds = {"Conv": "Conv", "Relu": "Relu", "MaxPool": "MaxPool", "LRN": "Lrn", "Concat": "Concat"}
    assert [kinds[node.op_type] for node in model.graph.node] == [type(node).__name__ for node in below]
    assert len(below) == 138
    found = run(table, stored, [node.name for node in below], picture)
    for node, values in zip(below, expected, strict=True):
        assert difference(found[node.name], torch.from_numpy(values)) < 1e-4, node.name
    alone = run(table, stored, ["inception_5b/output"], picture)["inception_5b/output"]  # with everything fused
    assert difference(alone, torch.from_numpy(expected[-1])) < 1e-4


@pytest.mark.parametrize(("size", "sizes"), [
    # (n + 6 - 7) / 2 + 1 at conv1, then ceil((n - 3) / 2) + 1 at each pool, worked by hand
    (224, (112, 56, 28, 14, 7)), (221, (111, 55, 27, 13, 6)), (227, (114, 57, 28, 14, 7)), (97, (49, 24, 12, 6, 3)),
])
def test_ceil_pools_have_the_sizes_worked_by_hand(size: int, sizes: tuple[int, ...]) -> None:
    taps = ["conv1/7x7_s2", "pool1/3x3_s2", "pool2/3x3_s2", "pool3/3x3_s2", "pool4/3x3_s2"]
    table = caffe_googlenet.nodes()
    found = run(table, random_weights(table), taps, torch.zeros(1, 3, size, size))
    assert tuple(found[tap].shape[-1] for tap in taps) == sizes
    assert tuple(nodes.feature_sizes(table, size, size)[tap][0] for tap in taps) == sizes


def test_every_blob_of_the_deploy_prototxt_is_a_tap() -> None:
    taps = models.get("bvlc_googlenet").taps()
    for name in ("pool1/norm1", "conv2/norm2", "conv2/3x3_reduce", "inception_3a/5x5_reduce", "inception_4c/output",
                 "inception_4d/pool", "inception_5b/relu_pool_proj", "pool5/7x7_s1", "loss3/classifier", "prob"):
        assert name in taps
    assert (taps["inception_4c/output"].channels, taps["inception_4c/output"].stride) == (512, 16)
    cars = models.get("cars_googlenet").taps()
    assert len(cars) == len(taps) and {"conv1", "norm1", "conv2_1x1", "norm2", "pool4", "inception_3a_1x1"} <= set(cars)
    assert models.get("places365_googlenet").taps()["prob"].channels == 365


# --- inception5h ------------------------------------------------------------------------------------------------------

def test_inception5h_s_lrn_is_the_formula_forward_and_backward() -> None:
    """TensorFlow's: x / (bias + alpha * sum over 2 * radius + 1 channels of x^2) ^ beta, with the graph's constants."""
    generator = torch.Generator().manual_seed(3)
    lrn = next(node for node in inception5h.nodes() if isinstance(node, Lrn))
    table = [Conv("conv", (INPUT,), out_channels=40), replace(lrn, inputs=("conv",))]
    stored = {"conv.weight": torch.randn(40, 3, 1, 1, generator=generator), "conv.bias": torch.zeros(40)}
    picture = torch.randn(1, 3, 6, 5, generator=generator) * 60
    weighting = torch.randn(1, 40, 6, 5, generator=generator)

    exact = picture.double().requires_grad_()
    x = torch.nn.functional.conv2d(exact, stored["conv.weight"].double())
    padded = torch.nn.functional.pad(x * x, (0, 0, 0, 0, 5, 5))
    expected = x / torch.sqrt(2 + 1e-4 * sum((padded[:, i:i + 40] for i in range(11)), torch.zeros(())))
    (gradient,) = torch.autograd.grad((expected * weighting).sum(), exact)

    network = Network(table, stored, [lrn.name], CPU, torch.float32)
    assert difference(network(picture)[lrn.name], expected.detach()) < 1e-6
    (found,) = network.gradients(picture, lambda features: [(features[lrn.name] * weighting).sum()])
    assert difference(found, gradient) < 1e-5


def test_inception5h_has_the_graph_s_own_widths_and_sizes() -> None:
    table = inception5h.nodes()
    taps, sizes = nodes.describe(table), nodes.feature_sizes(table, 224, 224)
    assert (taps["mixed4a"].channels, taps["mixed5a_5x5_bottleneck"].channels) == (508, 48)
    assert [sizes[name][0] for name in ("conv2d0", "maxpool0", "mixed3a", "mixed4a", "mixed5b")] == [112, 56, 28, 14, 7]
    stem = next(node for node in table if node.name == "conv2d0_pre_relu")
    assert isinstance(stem, Conv) and stem.pads(224, 224) == (2, 3, 2, 3)  # TensorFlow's SAME


# --- torchvision ------------------------------------------------------------------------------------------------------

_OPERATORS: list[Any] = []


@pytest.fixture(scope="module")
def torchvision_models() -> Any:
    """torchvision.models; beside a PyTorch that its compiled part was not built for, without that part."""
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library
        _OPERATORS.append(library("torchvision", "DEF"))  # its operators vanish with the object
        for name in ("nms", "qnms"):
            _OPERATORS[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision.models")


def with_random_statistics(network: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor, low, high in ((module.weight, 0.7, 1.6), (module.bias, -0.3, 0.3),
                                      (module.running_mean, -0.3, 0.3), (module.running_var, 0.3, 0.9)):
                tensor.data = torch.rand(tensor.shape, generator=generator) * (high - low) + low
    return network.eval()


def outputs(network: Any, names: set[str], picture: Tensor) -> dict[str, Tensor]:
    """What the modules give, copied at once: their ReLU works in place."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, output: found.__setitem__(name, output.clone())

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name in names]
    with torch.no_grad():
        network(picture)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("function", "row", "functional"), [
    ("googlenet", "torchvision_googlenet", 0),
    ("inception_v3", "torchvision_inception_v3", 15),  # 9 average pools, 2 max pools, 4 concatenations have no module
])
def test_a_node_table_equals_torchvision_s_network(function: str, row: str, functional: int,
                                                   torchvision_models: Any) -> None:
    network = with_random_statistics(getattr(torchvision_models, function)(init_weights=False, transform_input=True), 4)
    model = models.get(row)
    picture = torch.rand(1, 3, 171, 139, generator=torch.Generator().manual_seed(5)) * 2 - 1
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in ((.485, .456, .406), (.229, .224, .225)))
    expected = outputs(network, set(model.taps()), ((picture + 1) / 2 - mean) / deviation)
    assert len(expected) == len(model.taps()) - functional
    stored = weights.match_to_nodes(network.state_dict(), model)
    found = run(model.nodes(), stored, list(model.taps()), model.to_input(picture))
    for name, values in expected.items():
        assert difference(found[name], values) < 1e-4, name
    last = list(model.taps())[-1]
    assert difference(run(model.nodes(), stored, [last], model.to_input(picture))[last], expected[last]) < 1e-4


# --- Keras's Inception v3 ---------------------------------------------------------------------------------------------

def test_keras_inception_v3_has_the_published_blocks() -> None:
    """Szegedy et al. 2015, table 1, and the shapes in the comments of keras.applications."""
    table = inception_v3.nodes("mixed10")
    taps, sizes = nodes.describe(table), nodes.feature_sizes(table, 299, 299)
    assert [(*sizes[f"mixed{n}"], taps[f"mixed{n}"].channels) for n in range(11)] == [
        (35, 35, 256), (35, 35, 288), (35, 35, 288), *[(17, 17, 768)] * 5, (8, 8, 1280), (8, 8, 2048), (8, 8, 2048)]
    assert sum(name.startswith("conv2d_") for name in taps) == 94
    assert [name for name in taps if name.startswith(("mixed9", "concatenate"))] == [
        "mixed9_0", "concatenate_1", "mixed9", "mixed9_1", "concatenate_2"]
    assert inception_v3.nodes() == table[:len(inception_v3.nodes())]
    assert inception_v3.nodes()[-1].name == "mixed5"


def test_keras_inception_v3_is_torchvision_s_but_for_the_padding_of_average_pools() -> None:
    """Both create their layers in the same order, so one's weights serve the other; torchvision's is checked above."""
    ours, theirs = inception_v3.nodes("mixed10"), torchvision_nets.inception_v3()
    stored = random_weights(theirs)
    pairs = list(zip([node for node in ours if isinstance(node, Conv)],
                     [node for node in theirs if isinstance(node, Conv)], strict=True))
    same = {f"{a.weights}.{kind}": stored[f"{b.weights}.{kind}"] for a, b in pairs for kind in ("weight", "bias")}
    counting = [replace(node, count_padding=True) if isinstance(node, AvgPool) else node for node in ours]
    picture = torch.rand(1, 3, 139, 107, generator=torch.Generator().manual_seed(6)) * 2 - 1
    expected = run(theirs, stored, ["Mixed_6e", "Mixed_7a", "Mixed_7c"], picture)
    found = run(counting, same, ["mixed7", "mixed8", "mixed10"], picture)
    for name, other in (("mixed7", "Mixed_6e"), ("mixed8", "Mixed_7a"), ("mixed10", "Mixed_7c")):
        assert difference(found[name], expected[other]) < 1e-4, name


# --- what goes in -----------------------------------------------------------------------------------------------------

def test_every_network_is_given_the_numbers_it_was_trained_on() -> None:
    orange = torch.tensor([255.0, 128.0, 0.0]).view(1, 3, 1, 1) / 127.5 - 1
    trained_on: dict[str, list[float]] = {
        "inception_v3": [1, 128 / 127.5 - 1, -1], "keras_inception_v3": [1, 128 / 127.5 - 1, -1],
        "bvlc_googlenet": [0 - 104, 128 - 117, 255 - 123], "sos_googlenet": [0 - 104, 128 - 117, 255 - 123],
        "cars_googlenet": [0 - 104, 128 - 117, 255 - 123],
        "places205_googlenet": [0 - 105.417, 128 - 113.753, 255 - 116.047],
        "places365_googlenet": [0 - 104.051, 128 - 112.514, 255 - 116.676],
        "inception5h": [255 - 117, 128 - 117, 0 - 117],
    }
    for name, expected in trained_on.items():
        found = models.get(name).to_input(orange).flatten()
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


def test_a_tap_may_be_written_with_underscores() -> None:
    model = models.get("bvlc_googlenet")
    assert model.resolve_tap("inception_4c_output") == model.resolve_tap("inception_4c/output") == "inception_4c/output"
    assert model.resolve_tap("conv1_7x7_s2") == "conv1/7x7_s2"
    with pytest.raises(UnknownName, match=r"unknown layer 'inception_4c/ouput'; did you mean inception_4c/output"):
        model.resolve_tap("inception_4c/ouput")
