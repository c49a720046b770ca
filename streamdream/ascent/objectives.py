"""What is maximised: terms and their weights, made from the settings.

Terms of different kinds have numbers of different sizes, so their gradients are mixed (see ``step.apply_step``).
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from streamdream.ascent.terms import Activations, Guide, L2Penalty, Style, Term, TotalVariation
from streamdream.errors import SettingsError
from streamdream.models.nodes import Concat, Relu
from streamdream.settings_parsing import LayerWeight, parse_channels, parse_layers

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.settings import DreamSettings

MAX_STYLE_STRIDE = 16
"""Stride in pixels of the highest tap that a style is taken from when none is named."""


@dataclass(frozen=True)
class Objective:
    """Terms with their weights; negative ones are minimised."""

    terms: tuple[tuple[Term, float], ...]

    @property
    def taps(self) -> tuple[str, ...]:
        """Of all terms, each once."""
        return tuple(dict.fromkeys(tap for term, _ in self.terms for tap in term.taps))

    @cached_property
    def structure(self) -> Objective:
        """The objective without the weights of layers and channels, which a step gets as targets."""
        return Objective(tuple((term.structure(), weight) for term, weight in self.terms))


def style_taps(model: Model) -> tuple[str, ...]:
    """One of each scale not coarser than MAX_STYLE_STRIDE: the last block's output there, or the last ReLU's."""
    kinds = {node.name: type(node) for node in model.nodes()}
    last = {tap.stride: tap.name for kind in (Relu, Concat) for tap in model.taps().values() if kinds[tap.name] is kind}
    return tuple(name for stride, name in last.items() if stride <= MAX_STYLE_STRIDE)


def from_settings(settings: DreamSettings, model: Model) -> Objective:
    """The objective that the settings ask for; parsed once for the settings that it depends on.

    Raises UnknownName or SettingsError when the model does not have it.
    """
    return _parse(model, settings.layers, settings.channel, bool(settings.guide),
                  settings.style_weight if settings.style else 0.0, settings.style_layers, settings.tv, settings.l2)


@lru_cache(maxsize=64)
def _parse(model: Model, layers: str, channel: str, guided: bool, style_weight: float, style_layers: str, tv: float,
           l2: float) -> Objective:
    common, taps = parse_channels(channel), model.taps()
    weights = tuple(LayerWeight(model.resolve_tap(name), weight, own or common)
                    for name, weight, own in parse_layers(layers))
    for name, _, channels in weights:
        for number in channels:
            if not 0 <= number < taps[name].channels:
                flag = "--channel" if channels is common else f"--layers {name}: channel"
                raise SettingsError(f"{flag} {number}: {name} has the channels 0..{taps[name].channels - 1}")
    counts = tuple(taps[name].channels for name in dict.fromkeys(layer.name for layer in weights))
    dream = Guide(weights) if guided else Activations(weights, counts)
    terms: list[tuple[Term, float]] = [(dream, 1.0)]
    if style_weight:
        named = [name.strip() for name in style_layers.split(",") if name.strip()]
        style = Style(tuple(dict.fromkeys(map(model.resolve_tap, named))) or style_taps(model))
        terms.append((style, style_weight))
    terms += [(TotalVariation(), tv)] if tv else []
    terms += [(L2Penalty(), l2)] if l2 else []
    return Objective(tuple(terms))
