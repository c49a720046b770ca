"""The portable graph: equal to plain autograd for every architecture, of known operations, named by its content."""
from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from streamdream_bench.equality import by_itself, pictures, worst
from streamdream_bench.plain import FORWARDS, Plain
from torch.fx.experimental.proxy_tensor import make_fx

from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, graph, openvino
from streamdream.backends.eager import Eager
from streamdream.backends.engine import cosine, natural_noise
from streamdream.models import Model
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

CPU = torch.device("cpu")
CASES = [("inception_v3", "mixed5"), ("bvlc_googlenet", "inception_4c/output:1,conv2/norm2:0.5"),
         ("inception5h", "mixed4b"), ("keras_inception_v3", "mixed8"),
         ("cars_googlenet", "inception_4a_output"), ("torchvision_googlenet", "inception4a"),
         ("torchvision_inception_v3", "Mixed_6b")]
MARKS = [[pytest.mark.soak] if number >= 2 else [] for number in range(len(CASES))]
"""The last ones have the layers of those before, in another order, or are large: they run in the long tests."""
MARKED_CASES = [pytest.param(*case, marks=marks) for case, marks in zip(CASES, MARKS, strict=True)]

# What the graphs are made of. An engine must know all of it, so an addition here is a decision.
ALLOWED = {
    "<built-in function getitem>", "aten._to_copy.default", "aten._unsafe_view.default", "aten.abs.default",
    "aten.add.Tensor", "aten.addcmul.default", "aten.alias.default", "aten.argmax.default", "aten.bmm.default",
    "aten.cat.default", "aten.clamp.default", "aten.clone.default", "aten.constant_pad_nd.default",
    "aten.convolution.default", "aten.detach.default", "aten.div.Scalar", "aten.div.Tensor", "aten.eq.Tensor",
    "aten.expand.default", "aten.flip.default", "aten.full.default", "aten.gt.Scalar", "aten.index.Tensor",
    "aten.max_pool2d_with_indices.default", "aten.mean.default", "aten.mean.dim", "aten.mm.default", "aten.mul.Scalar",
    "aten.mul.Tensor", "aten.neg.default", "aten.ones.default", "aten.ones_like.default", "aten.permute.default",
    "aten.pixel_shuffle.default", "aten.pow.Tensor_Scalar", "aten.reflection_pad2d.default", "aten.relu.default",
    "aten.rsqrt.default", "aten.sign.default", "aten.slice.Tensor",
    "aten.split_with_sizes.default", "aten.sqrt.default", "aten.sub.Tensor", "aten.transpose.int", "aten.view.default",
    "aten.where.self", "aten.zeros.default",
}
KINDS: list[dict[str, Any]] = [
    {"tv": 0.5}, {"guide": "a.png"}, {"style": "a.png", "style_weight": 1.0, "l2": 0.1}]


@cache
def with_weights(name: str) -> Model:
    model = models.get(name)
    if not model.sources:
        return model
    stored = random_weights(model.nodes())
    return replace(model, load_weights=lambda: stored)


def spec(model: Model, layers: str, height: int = 131, width: int = 171, **more: Any) -> StepSpec:
    objective = objectives.from_settings(DreamSettings(layers=layers, **more), model)
    return StepSpec(objective, height, width, GradientShape(1.0, 0.4))


def test_bands_and_palette_are_in_the_graph() -> None:
    model = with_weights("inception_v3")
    wanted = replace(spec(model, "conv2d_2", 64, 81), shape=GradientShape(1.0, 0.8, 0.7, 3))
    reference = Plain(model, CPU, forward="graph").compile(wanted)
    found = worst(wanted, reference, by_itself(model, wanted, torch.float32))
    assert found["error"] < 1e-5, found


@pytest.mark.parametrize(("name", "layers"), MARKED_CASES)
def test_one_step_equals_autograd(name: str, layers: str) -> None:
    """Through the values that the graph has itself: on every kind of picture, a constant one, too."""
    model = with_weights(name)
    wanted = spec(model, layers)
    reference = Plain(model, CPU, forward="graph").compile(wanted)
    found = worst(wanted, reference, by_itself(model, wanted, torch.float32))
    assert found["error"] < 1e-5, found


@pytest.mark.parametrize(("name", "layers"), MARKED_CASES)
def test_graph_values_equal_those_of_the_network(name: str, layers: str) -> None:
    """In float64: in float32 two orders of adding are enough to flip a ReLU or a pool here and there (0.5 % seen)."""
    model = with_weights(name)
    wanted = spec(model, layers)
    written, *others = (Plain(model, CPU, torch.float64, forward).compile(wanted) for forward in FORWARDS)
    for kind in ("random", "quantised"):
        picture = pictures(131, 171)[kind]
        expected = written(picture, 0.02)
        for take in others:
            assert float((take(picture, 0.02) - expected).norm() / (expected - picture).norm()) < 1e-5, kind


@pytest.mark.parametrize(("name", "layers", "kind"), [
    *(pytest.param(*case, {}, marks=marks) for case, marks in zip(CASES, MARKS, strict=True)), (*CASES[1], KINDS[1])])
def test_fp16_holds_every_network(name: str, layers: str, kind: dict[str, Any]) -> None:
    """Caffe's have features of 300, whose squares it does not hold; a mean's gradient it would round to nothing."""
    model = with_weights(name)
    wanted, seen = spec(model, layers, 99, 115, **kind), {"guide": torch.rand(1, 3, 96, 112) * 2 - 1}
    picture, moves = natural_noise(torch.Size((1, 3, 99, 115)), CPU), []
    for precision in ("fp32", "fp16"):
        backend = Eager(model, "cpu", precision)
        moves.append(backend.compile(wanted)(picture, 0.02, backend.targets(wanted.objective, seen)) - picture)
    assert cosine(*moves) > 0.98


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True])
def test_of_equal_maxima_the_first_gets_the_gradient(kernel: int, stride: int, padding: int, ceil: bool) -> None:
    """Few values, so that nearly every window has its maximum several times; a flat part, and odd sizes."""
    generator = torch.Generator().manual_seed(kernel + 10 * stride)
    x = torch.randint(0, 3, (2, 5, 13, 18), generator=generator).float()
    x[..., 7:, :] = 1

    def gradient(x: torch.Tensor) -> torch.Tensor:
        watched = x.detach().requires_grad_()
        found = torch.nn.functional.max_pool2d(watched, kernel, stride, padding, ceil_mode=ceil)
        return torch.autograd.grad((found * torch.arange(found.numel()).view(found.shape)).sum(), watched)[0]

    assert torch.equal(make_fx(gradient, decomposition_table=graph.TABLE)(x)(x), gradient(x))


@pytest.mark.parametrize(("name", "layers", "kind"), [
    *(pytest.param(*case, KINDS[0], marks=[] if case == CASES[1] else pytest.mark.soak) for case in CASES),
    (*CASES[0], KINDS[1] | KINDS[2]), pytest.param(*CASES[1], KINDS[1] | KINDS[2], marks=pytest.mark.soak)])
def test_a_step_is_made_of_known_operations_only(name: str, layers: str, kind: dict[str, Any]) -> None:
    model = with_weights(name)
    wanted = spec(model, layers, 99, 115, **kind)  # bf16, where a processor has none of it, is slow
    seen = {need: torch.rand(1, 3, 96, 112) for need in ("guide", "style")}
    targets = Eager(model, "cpu", "bf16").targets(wanted.objective, seen)
    built = graph.build(model, wanted, torch.bfloat16, targets)
    assert isinstance(built.module, torch.fx.GraphModule)
    assert {str(node.target) for node in built.module.graph.nodes if node.op == "call_function"} <= ALLOWED
    for node in built.module.graph.nodes:
        if "max_pool2d" in str(node.target):  # padding and ceil are written out
            assert len(node.args) <= 3
            assert all(user.args[1] == 0 for user in node.users)  # the indices are not read
        if str(node.target) == "aten.convolution.default":
            assert node.args[6] is False  # none is transposed
    if backends.available("openvino")[0]:  # TensorRT's conversion has tests of its own
        model_there = openvino.convert(built)
        assert [tuple(given.shape) for given in model_there.inputs] == [tuple(given.shape) for given in built.inputs]


def test_the_digest_of_a_graph_tells_weights_layers_sizes_and_types_apart() -> None:
    model = with_weights("inception_v3")
    first = graph.build(model, spec(model, "conv2d_4", 64, 80), torch.float32).digest
    assert graph.build(model, spec(model, "conv2d_4", 64, 80), torch.float32).digest == first
    changed = {name: weight.clone() for name, weight in model.load_weights().items()}
    changed["conv2d_3.weight"][0, 0, 0, 0] += 1
    others = [graph.build(replace(model, load_weights=lambda: changed), spec(model, "conv2d_4", 64, 80), torch.float32),
              graph.build(model, spec(model, "mixed0", 65, 80), torch.float32),
              graph.build(model, spec(model, "conv2d_4", 64, 80), torch.bfloat16),
              graph.build(model, spec(model, "conv2d_4:-1", 64, 80), torch.float32)]
    assert len({first, *(other.digest for other in others)}) == 5


def test_the_step_size_is_an_input() -> None:
    model = with_weights("inception_v3")
    built = graph.build(model, spec(model, "mixed0"), torch.float32)
    picture = pictures(131, 171)["random"] / 2
    once, twice = (built.module(picture, torch.tensor([size])) - picture for size in (0.01, 0.02))
    torch.testing.assert_close(twice, 2 * once, atol=1e-5, rtol=1e-3)


@pytest.mark.soak
def test_pictures_of_a_batch_are_independent() -> None:
    """Each moves in the same way whatever the others are (a flat one, a loud one), and as it would alone."""
    model = with_weights("inception_v3")
    seen = {need: torch.rand(1, 3, 96, 112) * 2 - 1 for need in ("guide", "style")}
    for kind in KINDS:
        layers = "mixed0" if kind == KINDS[0] else "conv2d_4"  # a guide or a style at each layer before it takes long
        wanted = spec(model, layers, 64, 80, **kind)
        targets = Eager(model, "cpu", "fp32").targets(wanted.objective, seen)
        targets = tuple(tuple(target.double() for target in own) for own in targets) if "guide" in kind else targets
        flat = [target for own in targets for target in own]
        found = pictures(64, 80)
        batch = torch.cat([found["random"], found["quantised"] * 0.2, torch.zeros(1, 3, 64, 80)])
        size = torch.tensor([0.02])
        step = graph.build(model, wanted, torch.float64, targets, batch=3).module
        together = step(batch, size, *flat)
        for number in range(3):
            others = found["textured"].repeat(3, 1, 1, 1)
            others[number] = batch[number]
            assert float((together[number] - step(others, size, *flat)[number]).abs().max()) < 1e-6, (kind, number)
        if kind == KINDS[0]:
            alone = graph.build(model, wanted, torch.float64, targets).module(batch[:1], size, *flat)
            assert float((together[0] - alone[0]).abs().max()) < 1e-6


@pytest.mark.soak
def test_a_saved_graph_loads(tmp_path: Path) -> None:
    model = with_weights("inception_v3")
    built = graph.build(model, spec(model, "mixed0", 96, 112), torch.bfloat16)
    built.save(str(tmp_path / "step.pt2"))
    loaded = graph.load(str(tmp_path / "step.pt2"))
    picture, size = pictures(96, 112)["random"], torch.tensor([0.02])
    assert loaded.digest == built.digest
    assert torch.equal(loaded.module(picture, size), built.module(picture, size))
