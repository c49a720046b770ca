from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.autograd_reference import plain
from torch.utils.flop_counter import FlopCounterMode

from streamdream import models
from streamdream.errors import ModelError, UnknownName
from streamdream.models import inception_v3, nodes, weights
from streamdream.models.network import Network
from streamdream.settings_parsing import parse_layers

NODES = inception_v3.nodes()
CPU = torch.device("cpu")


def build(*taps: str, dtype: torch.dtype = torch.float32) -> Network:
    return Network(NODES, models.get("inception_v3").load_weights(), taps, CPU, dtype)


def test_every_tap_equals_the_unfolded_network_in_float64() -> None:
    picture = torch.rand(1, 3, 107, 91, generator=torch.Generator().manual_seed(1)) * 2 - 1
    taps = list(nodes.describe(NODES))
    expected = plain(taps, picture)
    for tap in taps:  # one by one, as each is the end of a differently cut and rearranged network
        found = build(tap)(picture)[tap].double()
        assert found.shape == expected[tap].shape
        assert float((found - expected[tap]).abs().max() / expected[tap].abs().max()) < 5e-5, tap


@pytest.mark.parametrize("size", [(96, 128), (75, 101)])
def test_gradient_equals_autograd_of_the_unfolded_network(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1

    exact = picture.double().requires_grad_()
    (second,) = torch.autograd.grad(plain(["mixed5"], exact)["mixed5"].square().mean(), exact)
    (first,) = build("mixed5").gradients(picture, lambda features: [features["mixed5"].square().mean()])
    assert float((first - second).norm() / second.norm()) < 2e-3  # max pools may pick another of two near-equal values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_decide_who_wins_in_the_first_pool(dtype: torch.dtype) -> None:
    """What comes before it is exact; the gradients there are in half precision all the same."""
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    pooled = next(node.name for node in NODES if isinstance(node, nodes.MaxPool))
    half, exact = (build("conv2d_1", pooled, "conv2d_4", "conv2d_5", dtype=kind)(picture)
                   for kind in (dtype, torch.float32))
    for tap in ("conv2d_1", pooled, "conv2d_4"):
        assert torch.equal(half[tap], exact[tap])
    assert half["conv2d_5"].dtype == dtype
    found, = build("mixed0", dtype=dtype).gradients(
        picture, lambda features: [features["mixed0"].float().square().mean()])
    assert found.dtype == torch.float32 and float(found.abs().max()) > 0


@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e6])
def test_a_gradient_overflows_fp16(weight: float) -> None:
    """As in a grown dream, one feature counts for thousands of others."""
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1

    strongest = int(build("mixed0")(picture)["mixed0"].argmax())

    def peaked(features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        values = features["mixed0"].float()
        return [weight * (values.square().mean() + values.contiguous().flatten()[strongest])]

    exact, = build("mixed0").gradients(picture, peaked)
    half, = build("mixed0", dtype=torch.float16).gradients(picture, peaked)
    assert torch.isfinite(half).all()
    assert float(torch.nn.functional.cosine_similarity(exact.flatten(), half.flatten(), 0)) > 0.95


def test_a_strong_picture_of_a_batch_rounds_a_weak_one_to_nothing() -> None:
    """Each is scaled by its own peak."""
    pictures = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    weights = torch.tensor([1.0, 1e-9]).view(2, 1, 1, 1)
    half = build("mixed0", dtype=torch.float16)
    both, = half.gradients(pictures, lambda features: [(features["mixed0"].float().square() * weights).mean()])
    alone, = half.gradients(pictures[1:], lambda features: [features["mixed0"].float().square().mean()])
    assert float(torch.nn.functional.cosine_similarity(both[1].flatten(), alone.flatten(), 0)) > 0.95


def test_trunk_has_the_shape_of_inception_v3() -> None:
    taps = models.get("inception_v3").taps()
    assert [(taps[f"mixed{n}"].channels, taps[f"mixed{n}"].stride) for n in range(6)] == [
        (256, 8), (288, 8), (288, 8), (768, 16), (768, 16), (768, 16)]
    assert sum(name.startswith("conv2d_") for name in taps) == 50
    sizes = nodes.feature_sizes(NODES, 299, 299)
    assert (sizes["mixed0"], sizes["mixed3"]) == ((35, 35), (17, 17))  # Szegedy et al. 2015, table 1


def test_smallest_picture_reaches_the_tap_and_one_less_does_not() -> None:
    least = models.get("inception_v3").taps()["mixed3"].min_size
    assert build("mixed3")(torch.zeros(1, 3, least, least))["mixed3"].shape == (1, 768, 1, 1)
    assert min(nodes.feature_sizes(NODES, least - 1, least - 1)["mixed3"]) < 1


def test_the_network_is_cut_after_the_deepest_tap() -> None:
    assert [node.name for node in nodes.subgraph(NODES, ["conv2d_2"])] == ["conv2d_1", "activation_1", "conv2d_2"]


def test_counted_flop_equal_those_pytorch_counts() -> None:
    picture = torch.zeros(1, 3, 120, 160, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(plain(["mixed3"], picture, torch.float32)["mixed3"].sum(), picture)
    assert counter.get_total_flops() == nodes.count_flop(nodes.subgraph(NODES, ["mixed3"]), 120, 160)


def test_a_tap_before_its_relu_is_not_overwritten_by_it() -> None:
    picture = torch.rand(1, 3, 96, 96) * 2 - 1
    both = build("conv2d_5", "activation_5")(picture)
    assert float(both["conv2d_5"].min()) < 0
    assert torch.equal(both["conv2d_5"].relu(), both["activation_5"])


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / "w.safetensors"
    shutil.copy(models.EMBEDDED_INCEPTION_V3, copy)
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        weights.read_quantized(copy, models.EMBEDDED_INCEPTION_V3_SHA256)
    with pytest.raises(ModelError, match="No such file"):
        weights.read_quantized(tmp_path / "none", models.EMBEDDED_INCEPTION_V3_SHA256)


def test_unknown_names_show_the_close_ones() -> None:
    with pytest.raises(UnknownName, match=r"unknown layer 'mixd3'; did you mean mixed3.*layers inception_v3"):
        models.get("inception_v3").resolve_tap("mixd3")
    with pytest.raises(UnknownName, match="did you mean inception_v3"):
        models.get("inceptionv3")


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_has_default_layers_of_its_own(name: str) -> None:
    model = models.get(name)
    name = parse_layers(model.default_layers)[0].name
    assert 8 <= model.taps()[name].stride <= 16 and name in model.blocks()


def test_missing_weights_are_named_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="the weights of bvlc_googlenet are not here; fetch them with: streamdream"):
        models.get("bvlc_googlenet").check_weights()
    models.get("inception_v3").check_weights()
