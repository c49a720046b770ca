"""The portable graph: equal to plain autograd for every architecture, of known operations, named by its content."""
from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from streamdream_bench.plain import Plain
from torch.fx.experimental.proxy_tensor import make_fx

from streamdream import models, objectives
from streamdream.backends import StepSpec, graph
from streamdream.models import Model
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

CASES = [("inception_v3", "mixed5"), ("bvlc_googlenet", "inception_4c/output:1,conv2/norm2:0.5"),
         ("cars_googlenet", "inception_4a_output"), ("inception5h", "mixed4b"),
         ("torchvision_googlenet", "inception4a"),
         ("torchvision_inception_v3", "Mixed_6b"), ("keras_inception_v3", "mixed8")]

# What the graphs are made of. An engine must know all of it, so an addition here is a decision.
ALLOWED = {
    "aten.add.Tensor", "aten.cat.default", "aten.clamp.default", "aten.constant_pad_nd.default",
    "aten.convolution.default", "aten.eq.Tensor", "aten.gt.Scalar", "aten.logical_and.default",
    "aten.logical_not.default", "aten.max_pool2d_with_indices.default", "aten.mul.Tensor", "aten.pixel_shuffle.default",
    "aten.relu.default", "aten.slice.Tensor", "aten.split_with_sizes.default", "aten.stack.default", "aten.sub.Tensor",
    "aten.view.default", "aten.where.self", "aten._to_copy.default", "aten.abs.default", "aten.addcmul.default",
    "aten.clone.default", "aten.detach.default", "aten.alias.default", "aten.div.Scalar", "aten.div.Tensor",
    "aten.expand.default", "aten.flip.default", "aten.full.default", "aten.mean.default", "aten.mean.dim",
    "aten.mul.Scalar", "aten.neg.default", "aten.ones.default", "aten.ones_like.default", "aten.pow.Tensor_Scalar",
    "aten.reflection_pad2d.default", "aten.rsqrt.default", "aten.sgn.default", "aten.sqrt.default",
    "aten.zeros.default",
    "aten.copy.default", "aten.permute.default", "<built-in function getitem>",
}


@cache
def with_weights(name: str) -> Model:
    model = models.get(name)
    if not model.sources:
        return model
    stored = random_weights(model.nodes())
    return replace(model, load_weights=lambda: stored)


def pictures(height: int, width: int) -> dict[str, torch.Tensor]:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = {"noise": noise, "quantised": (noise * 4).round() / 4}
    return {name: picture.contiguous(memory_format=torch.channels_last) for name, picture in found.items()}


def spec(model: Model, layers: str, height: int = 131, width: int = 171, **more: float) -> StepSpec:
    objective = objectives.from_settings(DreamSettings(layers=layers, **more), model)  # type: ignore[arg-type]
    return StepSpec(objective, height, width, 1.0, 0.4)


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_one_step_equals_plain_autograd(name: str, layers: str) -> None:
    """In float64: in float32 two orders of adding are enough to flip a ReLU or a pool here and there (0.5 % seen)."""
    model = with_weights(name)
    wanted = spec(model, layers)
    built = graph.build(model, wanted, torch.float64)
    reference = Plain(model, torch.device("cpu"), torch.float64).compile(wanted)
    for kind, picture in pictures(131, 171).items():
        expected = reference(picture, 0.02)
        taken = built.module(picture, torch.tensor([0.02]))
        assert float((taken - expected).norm() / (expected - picture).norm()) < 1e-5, kind


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


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_only_known_operations(name: str, layers: str) -> None:
    built = graph.build(with_weights(name), spec(with_weights(name), layers, tv=0.5), torch.bfloat16)
    assert {str(node.target) for node in built.module.graph.nodes if node.op == "call_function"} <= ALLOWED
    for node in built.module.graph.nodes:
        if "max_pool2d" in str(node.target):  # padding and ceil are written out
            assert len(node.args) <= 3
            assert all(user.args[1] == 0 for user in node.users)  # the indices are not read
        if str(node.target) == "aten.convolution.default":
            assert node.args[6] is False  # none is transposed


def test_it_is_named_by_what_it_is() -> None:
    model = with_weights("inception_v3")
    first = graph.build(model, spec(model, "mixed0"), torch.float32).digest
    assert graph.build(model, spec(model, "mixed0"), torch.float32).digest == first
    changed = {name: weight.clone() for name, weight in model.load_weights().items()}
    changed["conv2d_3.weight"][0, 0, 0, 0] += 1
    others = [graph.build(replace(model, load_weights=lambda: changed), spec(model, "mixed0"), torch.float32),
              graph.build(model, spec(model, "mixed0", height=132), torch.float32),
              graph.build(model, spec(model, "mixed0"), torch.bfloat16), graph.build(model, spec(model, "mixed0:-1"),
                                                                                     torch.float32)]
    assert len({first, *(other.digest for other in others)}) == 5


def test_the_step_size_is_an_input() -> None:
    model = with_weights("inception_v3")
    built = graph.build(model, spec(model, "mixed0"), torch.float32)
    picture = pictures(131, 171)["noise"] / 2
    once, twice = (built.module(picture, torch.tensor([size])) - picture for size in (0.01, 0.02))
    torch.testing.assert_close(twice, 2 * once, atol=1e-5, rtol=1e-3)
