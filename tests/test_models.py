from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from streamdream import models
from streamdream.errors import ModelError, UnknownName
from streamdream.models import inception_v3, nodes, weights
from streamdream.models.network import Network
from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, MaxPool, Relu

NODES = inception_v3.nodes()
CPU = torch.device("cpu")


def build(*taps: str, dtype: torch.dtype = torch.float32) -> Network:
    return Network(NODES, models.get("inception_v3").load_weights(), taps, CPU, dtype)


def plain(taps: list[str], picture: torch.Tensor, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """The same network once more, straight from the stored bytes: batch norm unfolded, nothing rearranged."""
    with safe_open(models.EMBEDDED_INCEPTION_V3, "pt") as file:
        scales = json.loads(file.metadata()["scale_and_min"])
        stored = {key: file.get_tensor(key).to(dtype) * scales[key][0] + scales[key][1] for key in scales}
    values = {INPUT: picture.to(dtype)}
    for node in NODES:
        x = [values[name] for name in node.inputs]
        match node:
            case Conv():
                y = F.conv2d(x[0], stored[f"{node.name}.kernel"], None, node.stride, node.padding)
                values[node.name] = F.batch_norm(y, stored[f"{node.name}.moving_mean"],
                                                 stored[f"{node.name}.moving_variance"], None,
                                                 stored[f"{node.name}.beta"], False, 0.0, 1e-3)
            case Relu():
                values[node.name] = F.relu(x[0])
            case MaxPool():
                values[node.name] = F.max_pool2d(x[0], 3, 2)
            case AvgPool():
                values[node.name] = F.avg_pool2d(x[0], 3, 1, 1, count_include_pad=False)
            case Concat():
                values[node.name] = torch.cat(x, 1)
    return {tap: values[tap] for tap in taps}


def test_every_tap_equals_the_unfolded_network_in_float64() -> None:
    picture = torch.rand(1, 3, 107, 91, generator=torch.Generator().manual_seed(1)) * 2 - 1
    taps = list(nodes.describe(NODES))
    expected = plain(taps, picture)
    for tap in taps:  # one by one, as each is the end of a differently cut and rearranged network
        with torch.no_grad():
            found = build(tap)(picture)[tap].double()
        assert found.shape == expected[tap].shape
        assert float((found - expected[tap]).abs().max() / expected[tap].abs().max()) < 5e-5, tap


@pytest.mark.parametrize("size", [(96, 128), (75, 101)])
def test_gradient_equals_autograd_of_the_unfolded_network(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1

    def gradient(found: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(found.square().mean(), at)[0].double()

    a, b = picture.clone().requires_grad_(), picture.double().requires_grad_()
    first, second = gradient(build("mixed5")(a)["mixed5"], a), gradient(plain(["mixed5"], b)["mixed5"], b)
    assert float((first - second).norm() / second.norm()) < 2e-3  # max pools may pick another of two near-equal values


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
    assert [node.name for node in nodes.needed(NODES, ["conv2d_2"])] == ["conv2d_1", "activation_1", "conv2d_2"]


def test_counted_flop_equal_those_pytorch_counts() -> None:
    net = Network(NODES, models.get("inception_v3").load_weights(), ["mixed3"], CPU, torch.float32)
    picture = torch.zeros(1, 3, 120, 160, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        net(picture)["mixed3"].sum().backward()
    # PyTorch counts the network as it runs, with three projections moved before their pools: the work is the same
    assert counter.get_total_flops() == nodes.count_flop(nodes.needed(NODES, ["mixed3"]), 120, 160)


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
        models.get("inception_v3").check_taps(["mixd3"])
    with pytest.raises(UnknownName, match="did you mean inception_v3"):
        models.get("inceptionv3")
