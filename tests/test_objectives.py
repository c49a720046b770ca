from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamdream import backends, models, settings_parsing
from streamdream.ascent import mixing, objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.terms import Activations
from streamdream.backends import StepSpec
from streamdream.errors import SettingsError, UnknownName
from streamdream.media.frame import to_signed_unit, to_tensor
from streamdream.settings import DreamSettings

MODEL = models.get("inception_v3")


def test_weighted_mean_square_by_hand() -> None:
    features = {"a": torch.full((1, 2, 1, 2), 3.0), "b": torch.tensor([[[[1.0]], [[5.0]]]])}
    assert float(Activations(settings_parsing.parse_layers("a:2,b:-0.5")).value(features, ())) == 2 * 9 - 0.5 * 13
    assert float(Activations(settings_parsing.parse_layers("b[1]")).value(features, ())) == 25


def test_layers_are_parsed_with_their_weights() -> None:
    layers = settings_parsing.parse_layers("mixed3:1, mixed5:0.5,mixed4")
    assert [layer[:2] for layer in layers] == [("mixed3", 1.0), ("mixed5", 0.5), ("mixed4", 1.0)]


def test_layers_are_parsed_with_their_channels_and_written_again() -> None:
    layers = settings_parsing.parse_layers("mixed5[33, 220]:1,mixed3:0.5,mixed5[12]:-0.5")
    assert [layer.channels for layer in layers] == [(33, 220), (), (12,)]
    assert settings_parsing.format_layers(layers) == "mixed5[33,220]:1,mixed3:0.5,mixed5[12]:-0.5"
    assert settings_parsing.parse_layers(settings_parsing.format_layers(layers)) == layers


def test_weights_of_channels_are_targets_of_one_step_for_all() -> None:
    """Another channel or weight of the same layers needs no new step, and the value is the same as without targets."""
    found = [objectives.from_settings(DreamSettings(layers=layers), MODEL)
             for layers in ("mixed5[33,220]:1,mixed3:0.5,mixed5[12]:-0.5", "mixed5,mixed3[4]:2")]
    assert found[0].structure == found[1].structure and found[0] != found[1]
    features = {"mixed5": torch.rand(2, 768, 3, 4), "mixed3": torch.rand(2, 768, 5, 5)}
    for objective in found:
        term = objective.terms[0][0]
        targets = term.targets(lambda picture: {}, {})
        assert [target.shape for target in targets] == [(768, 1, 1), (768, 1, 1)]
        value = objective.structure.terms[0][0].value(features, targets)
        torch.testing.assert_close(value, term.value(features, ()))


@pytest.mark.parametrize(("layers", "message"), [
    ("mixed3:x", "the weight of mixed3 is 'x'"), ("", "must be layers"), ("mixed3,mixed3", "twice"),
    ("mixed3:0", "no weight"), ("mixed3[5", "must be layers"), ("mixed3[]", "must be layers"),
    ("mixed3[x]", "whole numbers"), ("mixed3[5],mixed3[5]:2", "twice"), ("mixed3[768]", "channel 768: mixed3 has"),
    ("mixed3:nan", "the weight of mixed3 is 'nan'"),
])
def test_layers_that_cannot_be_parsed_are_named(layers: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        objectives.from_settings(DreamSettings(layers=layers), MODEL)


def test_a_layer_or_channel_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean mixed"):
        objectives.from_settings(DreamSettings(layers="mixd3"), MODEL)
    with pytest.raises(SettingsError, match=r"channel 768: mixed3 has the channels 0\.\.767"):
        objectives.from_settings(DreamSettings(layers="mixed3", channel="768"), MODEL)
    with pytest.raises(SettingsError, match="whole numbers"):
        objectives.from_settings(DreamSettings(layers="mixed3", channel="red"), MODEL)


def test_total_variation_and_energy_are_terms_beside_the_dream(lion: NDArray[np.uint8]) -> None:
    """With a large weight they win: the picture becomes smoother, or greyer, than the dream alone makes it."""
    photo = to_tensor(to_signed_unit(lion[:128, :128]))
    backend = backends.create("eager", MODEL, "cpu", "fp32")

    def dreamed(**changes: float) -> torch.Tensor:
        objective = objectives.from_settings(DreamSettings(layers="mixed0", **changes), MODEL)  # type: ignore[arg-type]
        return backend.compile(StepSpec(objective, 128, 128, GradientShape(0.0, 1.0)))(photo, 0.02)

    def roughness(picture: torch.Tensor) -> float:
        return float((picture[..., 1:] - picture[..., :-1]).abs().mean())

    alone = dreamed()
    assert roughness(dreamed(tv=5)) < roughness(photo) < roughness(alone)
    centred = [picture - picture.mean((2, 3), keepdim=True) for picture in (dreamed(l2=5), alone)]
    assert float(centred[0].square().mean()) < float(centred[1].square().mean())


def test_layers_are_mixed_with_equal_effect_and_given_weights_count() -> None:
    """Gradients of layers and channels differ by orders of magnitude: with equal weights one would hide the other."""
    half = settings_parsing.parse_layers(mixing.mix_layers(MODEL, "conv2d_2", "conv2d_4[5]:7", 0.5))
    old, new = (mixing.gradient_magnitude(MODEL, (part,)) for part in half)
    assert old == pytest.approx(new, rel=0.02)
    quarter = settings_parsing.parse_layers(mixing.mix_layers(MODEL, "conv2d_2", "conv2d_4[5]:7", 0.25))
    old, new = (mixing.gradient_magnitude(MODEL, (part,)) for part in quarter)
    assert old == pytest.approx(3 * new, rel=0.02)
