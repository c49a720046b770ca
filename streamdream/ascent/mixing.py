"""Mix the layers of two dreams with equal effect: for fades that grow out of each other, and for two looks in one.

Values of layers and channels differ by orders of magnitude, so with equal weights one of them would hide the other.
"""
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from streamdream.settings_parsing import LayerWeight, LayerWeights, format_layers, parse_channels, parse_layers

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model
    from streamdream.models.network import Network

MAX_LAYERS = 12
"""A fade that begins in the middle of another one mixes mixed layers: the weakest are left out."""
REFERENCE_SIDE = 96
"""Pixels of the picture on which gradients are measured; more for networks that need more."""
REFERENCE_STEPS, REFERENCE_STEP_SIZE = 6, 0.04
"""The picture is dreamed with the layers first: a rare channel has no gradient where nothing is like it."""
REFERENCE_SEED = 1


def mix_layers(model: Model, old: str, new: str, fraction: float) -> str:
    """Layers, as ``--layers`` takes them, whose dream is ``fraction`` (0..1) of the way from ``old`` to ``new``.

    Linear in the gradients (aligned interpolation: Mordvintsev et al. 2018, distill.pub/2018/differentiable-
    parameterizations), each divided by its mean magnitude. Loads PyTorch and the weights. Raises UnknownName or
    SettingsError.
    """
    if fraction <= 0 or old == new:
        return old
    if fraction >= 1:
        return new
    total: dict[tuple[str, tuple[int, ...]], float] = {}
    for text, share in ((old, 1 - fraction), (new, fraction)):
        layers = _resolve(model, text)
        share /= gradient_magnitude(model, layers)
        for name, weight, channels in layers:
            total[name, channels] = total.get((name, channels), 0.0) + share * weight
    strongest = sorted(total.items(), key=lambda item: -abs(item[1]))[:MAX_LAYERS]
    largest = abs(strongest[0][1])
    mixed = (LayerWeight(name, float(f"{weight / largest:.4g}"), channels) for (name, channels), weight in strongest)
    return format_layers(tuple(sorted(layer for layer in mixed if layer.weight))) if largest else new


def with_channels(layers: str, channel: str) -> str:
    """``layers`` with the channels of ``--channel`` written where a layer names none."""
    common = parse_channels(channel)
    return format_layers(tuple(layer._replace(channels=layer.channels or common) for layer in parse_layers(layers)))


@lru_cache(maxsize=256)
def gradient_magnitude(model: Model, layers: LayerWeights) -> float:
    """The mean magnitude of the smoothed gradient of layers at a picture that is dreamed with them."""
    from streamdream.ascent.gradient_shape import GradientShape
    from streamdream.ascent.step import apply_step, shape_gradient
    from streamdream.ascent.terms import Activations

    term, shape = Activations(layers), GradientShape(smooth=1.0)
    network = _network(model, tuple(sorted(term.taps)))
    picture = _reference_picture(max(REFERENCE_SIDE, *(model.taps()[tap].min_size for tap in term.taps)))
    magnitude = 0.0
    for _ in range(REFERENCE_STEPS):
        gradient, = network.gradients(model.to_input(picture), lambda features: [term.value(features, ())])
        shaped = shape_gradient(model.to_input.gradient(gradient), term, shape)
        magnitude = float(shaped.abs().mean())
        picture = apply_step(picture, [shaped], [(term, 1.0)], REFERENCE_STEP_SIZE)
    return magnitude or 1.0


@lru_cache(maxsize=4)
def _network(model: Model, taps: tuple[str, ...]) -> Network:
    import torch

    from streamdream.models.network import Network

    return Network(model.nodes(), model.load_weights(), taps, torch.device("cpu"), torch.float32)


def _reference_picture(side: int) -> Tensor:
    """[1, 3, side, side] in [-1, 1]: soft grey noise."""
    import torch
    import torch.nn.functional as F

    noise = torch.randn(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(REFERENCE_SEED))
    return F.interpolate(noise, (side, side), mode="bicubic").mul_(0.2).clamp_(-1, 1)


def _resolve(model: Model, text: str) -> LayerWeights:
    return tuple(layer._replace(name=model.resolve_tap(layer.name)) for layer in parse_layers(text))
