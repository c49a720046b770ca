"""What is maximised. An objective names the taps it reads and turns their features into one number.

Another objective (a guide picture, a style) is another class with ``taps`` and ``value``; nothing else needs to know.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamdream.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models import Model
    from streamdream.settings import DreamSettings


class Objective(Protocol):
    """Hashable; equal objectives may share one compiled step."""

    @property
    def taps(self) -> tuple[str, ...]: ...

    def value(self, features: dict[str, Tensor]) -> Tensor:
        """``{tap: [1, C, h, w]}`` -> a float32 scalar to be maximised."""
        ...


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

    def value(self, features: dict[str, Tensor]) -> Tensor:
        terms = [weight * self._chosen(features[name]).float().square().mean() for name, weight in self.weights]
        return sum(terms[1:], terms[0])

    def _chosen(self, feature: Tensor) -> Tensor:
        return feature[:, list(self.channels)] if self.channels else feature


def parse_layers(text: str) -> tuple[tuple[str, float], ...]:
    """``mixed3:1,mixed5:0.5`` -> ((tap, weight), ...); a missing weight is 1. Raises SettingsError."""
    pairs = []
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            number = float(weight or 1)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SettingsError(f"--layers: the weight of {name} is {weight!r}, but must be a number")
        if not name:
            raise SettingsError(f"--layers is {text!r}, but must be taps as in 'mixed3:1,mixed5:0.5'")
        pairs.append((name, number))
    if len({name for name, _ in pairs}) < len(pairs):
        raise SettingsError(f"--layers {text!r} names a tap twice")
    if not any(weight for _, weight in pairs):
        raise SettingsError(f"--layers {text!r} has no weight other than 0")
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
    model.check_taps(name for name, _ in weights)
    taps = model.taps()
    for name, _ in weights:
        for channel in channels:
            if not 0 <= channel < taps[name].channels:
                raise SettingsError(f"--channel {channel}: {name} has the channels 0..{taps[name].channels - 1}")
    return Activations(weights, channels)
