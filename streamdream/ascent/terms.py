"""The terms of an objective: each computes from taps one number to maximise.

A term is a frozen class with ``taps``, ``unbounded``, ``targets`` and ``value``; a new one needs only a row in
``objectives.from_settings``. ``targets`` are tensors computed once from another picture and passed to every step, so
that a compiled step does not depend on that picture.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from streamdream.models.nodes import INPUT
from streamdream.settings_parsing import LayerWeight, LayerWeights
from streamdream.system.tensor_cache import cached_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Features = dict[str, Tensor]
    """Tap -> [N, C, h, w]; ``INPUT`` -> the pictures [N, 3, H, W] in the network's range. The N pictures of a batch are
    independent: a value is the sum or mean over them."""
    FeaturesOf = Callable[[Tensor], Features]
    """A picture [1, 3, H, W] RGB in [-1, 1] -> its features."""
    Targets = tuple[Tensor, ...]
    Pictures = Mapping[str, Tensor]
    """"guide" or "style" -> [1, 3, H, W] RGB in [-1, 1]."""


CHUNK_PRODUCTS = 1 << 23
"""Maximum number of dot products that a guide computes at a time: 32 MB."""


class Term(Protocol):
    """A term. Hashable; equal terms may share a compiled step."""

    needs: ClassVar[str]
    """The picture of its targets, "guide" or "style"; "" for none."""
    unbounded: ClassVar[bool]
    """Whether the value can grow without limit. Its gradient is centred and desaturated, else the picture would
    drift to one hue and to colour noise. A term with an optimum, such as a style, needs neither."""

    @property
    def taps(self) -> tuple[str, ...]: ...

    def __hash__(self) -> int: ...

    def structure(self) -> Term:
        """Return the term without what its targets hold: equal ones share a compiled step."""
        ...

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        """Compute the targets from other pictures, or from what ``structure`` leaves out."""
        ...

    def value(self, features: Features, targets: Targets) -> Tensor:
        """Return the value to maximise, a float32 scalar."""
        ...


class _NoReference:
    """Part of the terms without targets from a picture."""

    needs: ClassVar[str] = ""

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        return ()


@dataclass(frozen=True)
class Activations(_NoReference):
    """The weighted mean square of taps, over all channels or the given ones.

    Mordvintsev, Olah, Tyka 2015 ("Inceptionism") set the gradient at the layer to the layer itself, which maximises
    half the sum of squares. The mean differs by a constant factor, which the normalisation of the step removes; it
    makes the weights of taps of different sizes comparable.

    With ``counts``, a target is the weights of the channels of one tap, [C, 1, 1], with a mean of the tap's weight: one
    step serves all weights.
    """

    weights: LayerWeights
    counts: tuple[int, ...] = ()
    """Number of channels of each of ``taps``; empty where it is unknown."""
    unbounded: ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return _taps(self.weights)

    def structure(self) -> Term:
        return Activations(tuple(LayerWeight(tap, 1.0) for tap in self.taps), self.counts) if self.counts else self

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        import torch

        vectors = {tap: torch.zeros(count, 1, 1) for tap, count in zip(self.taps, self.counts, strict=False)}
        for name, weight, channels in self.weights if vectors else ():
            chosen = list(channels) or slice(None)
            vectors[name][chosen] += weight * len(vectors[name]) / (len(channels) or len(vectors[name]))
        return tuple(vectors.values())

    def value(self, features: Features, targets: Targets) -> Tensor:
        if targets:
            terms = [(features[tap].float().square() * target).mean() for tap, target
                     in zip(self.taps, targets, strict=True)]
        else:
            terms = [weight * _select_channels(features[name], channels).float().square().mean()
                     for name, weight, channels in self.weights]
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Guide:
    """Similarity to a guide picture: at each position the dot product with the feature of the guide that maximises it.

    Mordvintsev et al. 2015, dream.ipynb, cell 27: ``diff = y[:, argmax(x.T @ y)]``, the gradient of that sum. A target
    is the features of the guide at one tap, [M, C].
    """

    weights: LayerWeights
    needs: ClassVar[str] = "guide"
    unbounded: ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return _taps(self.weights)

    def structure(self) -> Term:
        return self

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        features = features_of(pictures[self.needs])
        return tuple(_positions(_select_channels(features[name], channels)).contiguous()
                     for name, _, channels in self.weights)

    def value(self, features: Features, targets: Targets) -> Tensor:
        terms = []
        for (name, weight, channels), target in zip(self.weights, targets, strict=True):
            own, target = _to_float32(_positions(_select_channels(features[name], channels))), _to_float32(target)
            terms.append(weight * (own * target[_best_matches(own.detach(), target)]).float().mean())
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Style:
    """The negated distance of the Gram matrices of taps to those of a style picture.

    Gatys, Ecker, Bethge 2015 (arXiv:1508.06576), equation 5. The squared distance of each tap is divided by the mean
    square of its target, so that no tap dominates. A target is a Gram matrix [1, C, C].
    """

    taps: tuple[str, ...]
    needs: ClassVar[str] = "style"
    unbounded: ClassVar[bool] = False

    def structure(self) -> Term:
        return self

    def targets(self, features_of: FeaturesOf, pictures: Pictures) -> Targets:
        features = features_of(pictures[self.needs])
        return tuple(_gram(features[name]) for name in self.taps)

    def value(self, features: Features, targets: Targets) -> Tensor:
        terms = [(_gram(features[name]) - target).square().mean() / target.square().mean()
                 for name, target in zip(self.taps, targets, strict=True)]
        return -sum(terms[1:], terms[0])


@dataclass(frozen=True)
class TotalVariation(_NoReference):
    """The negated total variation: the mean absolute difference of neighbouring pixels (Rudin, Osher, Fatemi 1992)."""

    taps: tuple[str, ...] = ()
    unbounded: ClassVar[bool] = False

    def structure(self) -> Term:
        return self

    def value(self, features: Features, targets: Targets) -> Tensor:
        picture = features[INPUT].float()
        across, down = picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]
        return -across.abs().mean() - down.abs().mean()


@dataclass(frozen=True)
class L2Penalty(_NoReference):
    """The negated mean square of the picture, which pulls it toward grey (the L2 term of neural-dream)."""

    taps: tuple[str, ...] = ()
    unbounded: ClassVar[bool] = False

    def structure(self) -> Term:
        return self

    def value(self, features: Features, targets: Targets) -> Tensor:
        return -features[INPUT].float().square().mean()


def _taps(weights: LayerWeights) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(layer.name for layer in weights))


def _select_channels(feature: Tensor, channels: tuple[int, ...]) -> Tensor:
    return feature[:, _channel_indices(channels, feature.device)] if channels else feature


@cached_tensor
def _channel_indices(channels: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the indices as a tensor on the device. A list would be copied to a GPU, and wait for it, in each step."""
    import torch

    return torch.tensor(channels, device=device)


def _positions(feature: Tensor) -> Tensor:
    """Reshape [N, C, h, w] to [N * h * w, C], without a copy if channels are last in memory."""
    return feature.permute(0, 2, 3, 1).flatten(0, 2)


def _to_float32(features: Tensor) -> Tensor:
    """Convert fp16 features, as products of those of Caffe networks overflow it."""
    import torch

    return features.float() if features.dtype == torch.float16 else features


def _best_matches(own: Tensor, target: Tensor) -> Tensor:
    """Return for each row of ``own`` [P, C] the row of ``target`` [M, C] with the largest dot product, [P]."""
    import torch

    rows = max(1, CHUNK_PRODUCTS // target.shape[0])
    transposed = target.T
    return torch.cat([(own[start:start + rows] @ transposed).argmax(1) for start in range(0, own.shape[0], rows)])


def _gram(feature: Tensor) -> Tensor:
    """Return the Gram matrices of features [N, C, h, w], float32 [N, C, C]: the mean products of channels."""
    flat = feature.permute(0, 2, 3, 1).flatten(1, 2).float()
    return flat.transpose(1, 2) @ flat / flat.shape[1]
