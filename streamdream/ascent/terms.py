"""The terms of an objective: each reads taps and gives one number to be maximised.

A term is a frozen class with ``taps``, ``unbounded``, ``targets`` and ``value``; a new one needs a row in
``objectives.from_settings`` and nothing else. What a term takes from another picture are its targets: tensors that are
computed once and handed to every step, so that a step can be compiled without knowing the picture.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from streamdream.models.nodes import INPUT
from streamdream.models.tensor_cache import cached_tensor
from streamdream.settings_parsing import TapWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Features = dict[str, Tensor]
    """Tap -> [N, C, h, w]; ``INPUT`` -> the pictures [N, 3, H, W] in the network's range. N pictures dreamed at once
    must not meet: a value is a sum, or mean, of theirs."""
    FeaturesOf = Callable[[Tensor], Features]
    """A picture [1, 3, H, W] RGB in [-1, 1] -> its features."""
    Targets = tuple[Tensor, ...]
    Pictures = Mapping[str, Tensor]
    """"guide" or "style" -> [1, 3, H, W] RGB in [-1, 1]."""


CHUNK_PRODUCTS = 1 << 23
"""Dot products that a guide holds at a time: 32 MB of them."""


class Term(Protocol):
    """Hashable; equal terms may share a compiled step."""

    needs: ClassVar[str]
    """The picture that its targets come from, "guide" or "style"; "" for none."""
    unbounded: ClassVar[bool]
    """Whether it has no end: then its gradient loses its mean and some of its colour, or the picture would turn to a
    hue and to confetti. What pulls toward something, such as a style, keeps both."""

    @property
    def taps(self) -> tuple[str, ...]: ...

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        """What it takes from other pictures, once."""
        ...

    def value(self, features: Features, targets: Targets) -> Tensor:
        """A float32 scalar."""
        ...


class _NoReference:
    """No other picture."""

    needs: ClassVar[str] = ""

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        return ()


@dataclass(frozen=True)
class Activations(_NoReference):
    """Weighted mean square of taps, over all their channels or the chosen ones.

    Mordvintsev, Olah, Tyka 2015 ("Inceptionism") set the gradient at the layer to the layer itself, which maximises
    half its sum of squares; the mean differs by a constant that the step's normalisation removes, and lets taps of
    different sizes be weighed against each other.
    """

    weights: TapWeights
    channels: tuple[int, ...] = ()
    unbounded: ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    def value(self, features: Features, targets: Targets) -> Tensor:
        terms = [weight * _select_channels(features[name], self.channels).float().square().mean()
                 for name, weight in self.weights]
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Guide:
    """Dream toward another picture: at each position its feature with the largest dot product is climbed to.

    Mordvintsev et al. 2015, dream.ipynb, cell 27: ``diff = y[:, argmax(x.T @ y)]``, the gradient of what is summed
    here. A target is the guide's features at one tap, [M, C].
    """

    weights: TapWeights
    channels: tuple[int, ...] = ()
    needs: ClassVar[str] = "guide"
    unbounded: ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        features = features_of(pictures[self.needs])
        return tuple(_positions(_select_channels(features[name], self.channels)).contiguous() for name in self.taps)

    def value(self, features: Features, targets: Targets) -> Tensor:
        terms = []
        for (name, weight), target in zip(self.weights, targets, strict=True):
            own, target = _to_float32(_positions(_select_channels(features[name], self.channels))), _to_float32(target)
            terms.append(weight * (own * target[_best_matches(own.detach(), target)]).float().mean())
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Style:
    """Closeness of the correlations between channels, tap by tap, to those of a style picture.

    Gatys, Ecker, Bethge 2015 (arXiv:1508.06576), equation 5, each tap's squared distance over the style's own mean
    square, so that no tap drowns the others. A target is a Gram matrix [1, C, C].
    """

    taps: tuple[str, ...]
    needs: ClassVar[str] = "style"
    unbounded: ClassVar[bool] = False

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        features = features_of(pictures[self.needs])
        return tuple(_gram(features[name]) for name in self.taps)

    def value(self, features: Features, targets: Targets) -> Tensor:
        terms = [(_gram(features[name]) - target).square().mean() / target.square().mean()
                 for name, target in zip(self.taps, targets, strict=True)]
        return -sum(terms[1:], terms[0])


@dataclass(frozen=True)
class TotalVariation(_NoReference):
    """Total variation, negated: the mean absolute difference of neighbouring pixels (Rudin, Osher, Fatemi 1992)."""

    taps: tuple[str, ...] = ()
    unbounded: ClassVar[bool] = False

    def value(self, features: Features, targets: Targets) -> Tensor:
        picture = features[INPUT].float()
        across, down = picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]
        return -across.abs().mean() - down.abs().mean()


@dataclass(frozen=True)
class L2Penalty(_NoReference):
    """The mean square of the picture, negated: pulls it toward grey (the L2 term of neural-dream)."""

    taps: tuple[str, ...] = ()
    unbounded: ClassVar[bool] = False

    def value(self, features: Features, targets: Targets) -> Tensor:
        return -features[INPUT].float().square().mean()


def _select_channels(feature: Tensor, channels: tuple[int, ...]) -> Tensor:
    return feature[:, _channel_indices(channels, feature.device)] if channels else feature


@cached_tensor
def _channel_indices(channels: tuple[int, ...], device: torch.device) -> Tensor:
    """On the device: a list would be sent there in every step, and a GPU waited for."""
    import torch

    return torch.tensor(channels, device=device)


def _positions(feature: Tensor) -> Tensor:
    """[N, C, h, w] -> [N * h * w, C]; no copy where channels are last in memory."""
    return feature.permute(0, 2, 3, 1).flatten(0, 2)


def _to_float32(features: Tensor) -> Tensor:
    """Products of Caffe's features do not fit into fp16."""
    import torch

    return features.float() if features.dtype == torch.float16 else features


def _best_matches(own: Tensor, target: Tensor) -> Tensor:
    """For each of ``own`` [P, C] the row of ``target`` [M, C] with the largest dot product: [P]."""
    import torch

    rows = max(1, CHUNK_PRODUCTS // target.shape[0])
    transposed = target.T
    return torch.cat([(own[at:at + rows] @ transposed).argmax(1) for at in range(0, own.shape[0], rows)])


def _gram(feature: Tensor) -> Tensor:
    """[N, C, h, w] -> float32 [N, C, C]: of each picture, the mean over its positions of the products of channels."""
    flat = feature.permute(0, 2, 3, 1).flatten(1, 2).float()
    return flat.transpose(1, 2) @ flat / flat.shape[1]
