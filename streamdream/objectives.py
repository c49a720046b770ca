"""What is maximised: terms, each of which reads taps and gives one number, and how they are mixed.

A term is a frozen class with ``taps`` and ``prepare``; a new one needs a row in ``from_settings`` and nothing else.
Terms of different kinds have numbers of different sizes, so they are mixed by their gradients (see ``step.mix``).
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamdream.errors import SettingsError
from streamdream.models.nodes import INPUT

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model
    from streamdream.settings import DreamSettings

    Features = dict[str, Tensor]
    """Tap -> [1, C, h, w]; ``INPUT`` -> the picture [1, 3, H, W] in the network's range."""
    FeaturesOf = Callable[[Tensor], Features]
    Value = Callable[[Features], Tensor]
    """Features of the picture being dreamed -> a float32 scalar."""


class Term(Protocol):
    """Hashable; equal terms may share what is prepared."""

    @property
    def taps(self) -> tuple[str, ...]: ...

    def prepare(self, features_of: FeaturesOf) -> Value:
        """Whatever is needed once, such as the features of another picture; then the number to be maximised."""
        ...


@dataclass(frozen=True)
class Objective:
    """Terms with their weights; negative ones are minimised."""

    terms: tuple[tuple[Term, float], ...]

    @property
    def taps(self) -> tuple[str, ...]:
        """Of all terms, each once."""
        return tuple(dict.fromkeys(tap for term, _ in self.terms for tap in term.taps))


@dataclass(frozen=True)
class Activations:
    """Weighted mean square of taps, over all their channels or the chosen ones.

    Mordvintsev, Olah, Tyka 2015 ("Inceptionism") set the gradient at the layer to the layer itself, which maximises
    half its sum of squares; the mean differs by a constant that the step's normalisation removes, and lets taps of
    different sizes be weighed against each other.
    """

    weights: tuple[tuple[str, float], ...]
    channels: tuple[int, ...] = ()

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    def prepare(self, features_of: FeaturesOf) -> Value:
        return self.value

    def value(self, features: Features) -> Tensor:
        terms = [weight * self._chosen(features[name]).float().square().mean() for name, weight in self.weights]
        return sum(terms[1:], terms[0])

    def _chosen(self, feature: Tensor) -> Tensor:
        return feature[:, list(self.channels)] if self.channels else feature


@dataclass(frozen=True)
class Variation:
    """Total variation, negated: the mean absolute difference of neighbouring pixels (Rudin, Osher, Fatemi 1992)."""

    taps: tuple[str, ...] = ()

    def prepare(self, features_of: FeaturesOf) -> Value:
        def value(features: Features) -> Tensor:
            picture = features[INPUT].float()
            across, down = picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]
            return -across.abs().mean() - down.abs().mean()

        return value


@dataclass(frozen=True)
class Energy:
    """The mean square of the picture, negated: pulls it toward grey (the L2 term of neural-dream)."""

    taps: tuple[str, ...] = ()

    def prepare(self, features_of: FeaturesOf) -> Value:
        return lambda features: -features[INPUT].float().square().mean()


def parse_layers(text: str, flag: str = "--layers") -> tuple[tuple[str, float], ...]:
    """``mixed3:1,mixed5:0.5`` -> ((tap, weight), ...); a missing weight is 1. Raises SettingsError."""
    pairs = []
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            number = float(weight or 1)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SettingsError(f"{flag}: the weight of {name} is {weight!r}, but must be a number")
        if not name:
            raise SettingsError(f"{flag} is {text!r}, but must be taps as in 'mixed3:1,mixed5:0.5'")
        pairs.append((name, number))
    if len({name.replace("/", "_") for name, _ in pairs}) < len(pairs):
        raise SettingsError(f"{flag} {text!r} names a tap twice")
    if not any(weight for _, weight in pairs):
        raise SettingsError(f"{flag} {text!r} has no weight other than 0")
    return tuple(pairs)


def parse_channels(text: str) -> tuple[int, ...]:
    """``3,17`` -> (3, 17). Raises SettingsError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise SettingsError(f"--channel is {text!r}, but must be whole numbers, as in '3,17'") from None


def from_settings(settings: DreamSettings, model: Model) -> Objective:
    """The objective that the settings ask for. Raises UnknownName or SettingsError when the model does not have it."""
    weights, channels = parse_layers(settings.layers), parse_channels(settings.channel)
    weights = tuple((model.resolve_tap(name), weight) for name, weight in weights)
    taps = model.taps()
    for name, _ in weights:
        for channel in channels:
            if not 0 <= channel < taps[name].channels:
                raise SettingsError(f"--channel {channel}: {name} has the channels 0..{taps[name].channels - 1}")
    terms: list[tuple[Term, float]] = [(Activations(weights, channels), 1.0)]
    terms += [(Variation(), settings.tv)] if settings.tv else []
    terms += [(Energy(), settings.l2)] if settings.l2 else []
    return Objective(tuple(terms))
